//! Random balancers.
