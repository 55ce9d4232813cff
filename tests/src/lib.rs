//! What tests and the demo share: laboratories of network namespaces with clients, servers and the balancer in them.

pub mod lab;
