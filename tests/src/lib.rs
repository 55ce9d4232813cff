//! What the tests of `lb` are made with. The tests themselves are under `tests/`.

pub mod datapath;
pub mod packets;
