//! What the tests of `lb` are made with: hand-built packets and a rig for the program itself, and laboratories of
//! network namespaces with clients, servers and the balancer in them. The tests are under `tests/`.

pub mod datapath;
pub mod lab;
pub mod packets;
