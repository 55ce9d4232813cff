//! Edits: what they do to the text, and that the result means what was asked.

mod generated;

use super::super::{EditError, edit as edit_source, example};
use crate::{
    api::{BackendPatch, BackendSpec, CheckSpec, Edit, PoolPatch, PoolSpec, ServicePatch, ServiceSpec},
    model::{service::AdminState, source::Source},
};

fn edit(text: &str, change: &Edit) -> Result<String, EditError> {
    edit_source(&Source::of(text), change)
}

fn set_state(pool: &str, name: &str, state: AdminState) -> Edit {
    let patch = BackendPatch { state: Some(state), ..BackendPatch::default() };
    Edit::SetBackend { pool: pool.into(), name: name.into(), patch }
}

fn add_backend(pool: &str, name: &str, address: &str) -> Edit {
    let backend = BackendSpec { name: name.into(), address: address.into(), ..BackendSpec::default() };
    Edit::AddBackend { pool: pool.into(), backend }
}

fn delete_backend(pool: &str, name: &str) -> Edit {
    Edit::DeleteBackend { pool: pool.into(), name: name.into() }
}

fn set_ports(name: &str, ports: &[&str]) -> Edit {
    let ports = Some(ports.iter().map(|port| (*port).to_owned()).collect());
    Edit::SetService { name: name.into(), patch: ServicePatch { ports, ..ServicePatch::default() } }
}

fn set_check(pool: &str, check: CheckSpec) -> Edit {
    Edit::SetPool { name: pool.into(), patch: PoolPatch { check: Some(Box::new(check)) } }
}

fn tcp(interval: &str) -> CheckSpec {
    CheckSpec { kind: "tcp".into(), port: Some(81), interval: Some(interval.into()), ..CheckSpec::default() }
}

/// Before, the edit, after.
#[test]
fn an_edit_changes_what_it_must_and_nothing_else() {
    let cases: Vec<(&str, Edit, &str)> = vec![
        // Sections: a backend of a pool that is not the last one stays in its pool.
        (
            "[[pool]]\nname = \"a\"\n\n[[pool.backend]]\nname = \"x\"\naddress = \"10.0.0.1\" # first\n# weight = 5\n\n# the other\n[[pool]]\nname = \"b\"\n",
            add_backend("a", "y", "10.0.0.2"),
            "[[pool]]\nname = \"a\"\n\n[[pool.backend]]\nname = \"x\"\naddress = \"10.0.0.1\" # first\n# weight = 5\n\n[[pool.backend]]\nname = \"y\"\naddress = \"10.0.0.2\"\n\n# the other\n[[pool]]\nname = \"b\"\n",
        ),
        (
            "[[pool]]\nname = \"a\" # no backend yet\n[[pool]]\nname = \"b\"",
            add_backend("a", "y", "10.0.0.2"),
            "[[pool]]\nname = \"a\" # no backend yet\n\n[[pool.backend]]\nname = \"y\"\naddress = \"10.0.0.2\"\n[[pool]]\nname = \"b\"",
        ),
        // The sibling's layout is taken over.
        (
            "[[pool]]\nname = \"a\"\n  [[pool.backend]]\n  name    = \"x\"\n  address = \"10.0.0.1\"\n[[pool]]\nname = \"b\"\n",
            add_backend("a", "y", "10.0.0.2"),
            "[[pool]]\nname = \"a\"\n  [[pool.backend]]\n  name    = \"x\"\n  address = \"10.0.0.1\"\n  [[pool.backend]]\n  name    = \"y\"\n  address = \"10.0.0.2\"\n[[pool]]\nname = \"b\"\n",
        ),
        // Inline, on one line and on several, with and without a trailing comma.
        (
            "[[pool]]\nname = \"a\"\nbackend = [{ name = \"x\", address = \"10.0.0.1\" }] # all\n",
            add_backend("a", "y", "10.0.0.2"),
            "[[pool]]\nname = \"a\"\nbackend = [{ name = \"x\", address = \"10.0.0.1\" }, { name = \"y\", address = \"10.0.0.2\" }] # all\n",
        ),
        (
            "[[pool]]\nname = \"a\"\nbackend = [\n  { name = \"x\", address = \"10.0.0.1\" }, # first\n  # more?\n]\n",
            add_backend("a", "y", "10.0.0.2"),
            "[[pool]]\nname = \"a\"\nbackend = [\n  { name = \"x\", address = \"10.0.0.1\" }, # first\n  { name = \"y\", address = \"10.0.0.2\" },\n  # more?\n]\n",
        ),
        (
            "[[pool]]\nname = \"a\"\nbackend = [\n  { name = \"x\", address = \"10.0.0.1\" } # first\n]\n",
            add_backend("a", "y", "10.0.0.2"),
            "[[pool]]\nname = \"a\"\nbackend = [\n  { name = \"x\", address = \"10.0.0.1\" }, # first\n  { name = \"y\", address = \"10.0.0.2\" }\n]\n",
        ),
        (
            "[[pool]]\nname = \"a\"\nbackend = []\n",
            add_backend("a", "y", "10.0.0.2"),
            "[[pool]]\nname = \"a\"\nbackend = [{ name = \"y\", address = \"10.0.0.2\" }]\n",
        ),
        (
            "pool = [{ name = \"a\" }]\n",
            add_backend("a", "y", "10.0.0.2"),
            "pool = [{ name = \"a\", backend = [{ name = \"y\", address = \"10.0.0.2\" }] }]\n",
        ),
        // A pool whose cousins are inline.
        (
            "[[pool]]\nname = \"a\"\n[[pool]]\nname = \"b\"\nbackend = []\n",
            add_backend("a", "y", "10.0.0.2"),
            "[[pool]]\nname = \"a\"\nbackend = [\n    { name = \"y\", address = \"10.0.0.2\" },\n]\n[[pool]]\nname = \"b\"\nbackend = []\n",
        ),
        // States come and go; a comment on the line stays.
        (
            "[[pool]]\nname = \"a\"\n[[pool.backend]]\nname = \"x\"\naddress = \"10.0.0.1\"\nstate = \"drain\" # disk\nweight = 1\n",
            set_state("a", "x", AdminState::Ready),
            "[[pool]]\nname = \"a\"\n[[pool.backend]]\nname = \"x\"\naddress = \"10.0.0.1\"\n# disk\nweight = 1\n",
        ),
        (
            "[[pool]]\nname = \"a\"\n[[pool.backend]]\nname = \"x\"\naddress = \"10.0.0.1\" # here\n[[pool]]\nname = \"b\"\n",
            set_state("a", "x", AdminState::Maint),
            "[[pool]]\nname = \"a\"\n[[pool.backend]]\nname = \"x\"\naddress = \"10.0.0.1\" # here\nstate = \"maint\"\n[[pool]]\nname = \"b\"\n",
        ),
        (
            "[[pool]]\nname = \"a\"\nbackend = [{ name = \"x\", state = 'drain', address = \"10.0.0.1\" }]\n",
            set_state("a", "x", AdminState::Ready),
            "[[pool]]\nname = \"a\"\nbackend = [{ name = \"x\", address = \"10.0.0.1\" }]\n",
        ),
        (
            "[[pool]]\nname = \"a\"\nbackend = [{ name = \"x\", address = \"10.0.0.1\", state = 'drain' }]\n",
            set_state("a", "x", AdminState::Ready),
            "[[pool]]\nname = \"a\"\nbackend = [{ name = \"x\", address = \"10.0.0.1\" }]\n",
        ),
        (
            "[[pool]]\nname = \"a\"\nbackend = [{ name = \"x\", address = \"10.0.0.1\", state = 'drain' }]\n",
            set_state("a", "x", AdminState::Maint),
            "[[pool]]\nname = \"a\"\nbackend = [{ name = \"x\", address = \"10.0.0.1\", state = \"maint\" }]\n",
        ),
        // Asking for what holds already changes no byte, however it is quoted.
        (
            "[[pool]]\nname = 'a'\n[[pool.backend]]\nname = 'x'\naddress = '10.0.0.1'\nstate = 'drain'\n",
            set_state("a", "x", AdminState::Drain),
            "[[pool]]\nname = 'a'\n[[pool.backend]]\nname = 'x'\naddress = '10.0.0.1'\nstate = 'drain'\n",
        ),
        // Deleting.
        (
            "[[pool]]\nname = \"a\"\n\n# old\n[[pool.backend]]\nname = \"x\"\naddress = \"10.0.0.1\" # gone\n\n[[pool.backend]]\nname = \"y\"\naddress = \"10.0.0.2\"\n",
            delete_backend("a", "y"),
            "[[pool]]\nname = \"a\"\n\n# old\n[[pool.backend]]\nname = \"x\"\naddress = \"10.0.0.1\" # gone\n",
        ),
        (
            "[[pool]]\nname = \"a\"\n\n[[pool.backend]]\nname = \"x\"\naddress = \"10.0.0.1\" # gone\n\n[[pool.backend]]\nname = \"y\"\naddress = \"10.0.0.2\"\n",
            delete_backend("a", "x"),
            "[[pool]]\nname = \"a\"\n\n[[pool.backend]]\nname = \"y\"\naddress = \"10.0.0.2\"\n",
        ),
        (
            "[[pool]]\nname = \"a\"\nbackend = [\n  { name = \"x\", address = \"10.0.0.1\" }, # x\n  # about y\n  { name = \"y\", address = \"10.0.0.2\" } # y\n]\n",
            delete_backend("a", "x"),
            "[[pool]]\nname = \"a\"\nbackend = [\n  # about y\n  { name = \"y\", address = \"10.0.0.2\" } # y\n]\n",
        ),
        (
            "[[pool]]\nname = \"a\"\nbackend = [{ name = \"x\", address = \"10.0.0.1\" }, { name = \"y\", address = \"10.0.0.2\" }]\n",
            delete_backend("a", "y"),
            "[[pool]]\nname = \"a\"\nbackend = [{ name = \"x\", address = \"10.0.0.1\" }]\n",
        ),
        // A pool with its sections, between which those of others may stand.
        (
            "[[pool]]\nname = \"a\"\n[pool.check]\ntype = \"tcp\"\n\n# services\n[[service]]\nname = \"s\"\nvip = \"192.0.2.1\"\nports = [\"tcp/1\"]\npool = \"b\"\n\n[[pool.backend]]\nname = \"x\"\naddress = \"10.0.0.1\"\n\n[[pool]]\nname = \"b\"\n",
            Edit::DeletePool { name: "a".into() },
            "# services\n[[service]]\nname = \"s\"\nvip = \"192.0.2.1\"\nports = [\"tcp/1\"]\npool = \"b\"\n\n[[pool]]\nname = \"b\"\n",
        ),
        // Checks: key by key in whatever form there is, or new.
        (
            "[[pool]]\nname = \"a\"\n[pool.check] # how\ntype = \"http\"\npath = \"/x\" # page\ninterval = \"3s\"\n",
            set_check("a", tcp("4s")),
            "[[pool]]\nname = \"a\"\n[pool.check] # how\ntype = \"tcp\"\n# page\ninterval = \"4s\"\nport = 81\n",
        ),
        (
            "[[pool]]\nname = \"a\"\ncheck.type = \"http\"\ncheck.path = \"/x\"\n[[pool.backend]]\nname = \"x\"\naddress = \"10.0.0.1\"\n",
            set_check("a", tcp("4s")),
            "[[pool]]\nname = \"a\"\ncheck.type = \"tcp\"\ncheck.port = 81\ncheck.interval = \"4s\"\n[[pool.backend]]\nname = \"x\"\naddress = \"10.0.0.1\"\n",
        ),
        (
            "[[pool]]\nname = \"a\"\ncheck = {type = \"http\", path = \"/x\", rise = 3}\n",
            set_check("a", tcp("4s")),
            "[[pool]]\nname = \"a\"\ncheck = {type = \"tcp\", port = 81, interval = \"4s\"}\n",
        ),
        (
            "pool = [{ name = \"a\", check.type = \"http\", check.path = \"/x\" }]",
            set_check("a", tcp("4s")),
            "pool = [{ name = \"a\", check.type = \"tcp\", check.port = 81, check.interval = \"4s\" }]",
        ),
        (
            "[[pool]]\nname = \"a\"\n",
            set_check("a", tcp("4s")),
            "[[pool]]\nname = \"a\"\ncheck = { type = \"tcp\", port = 81, interval = \"4s\" }\n",
        ),
        // Keys that come and go.
        (
            "[[pool]]\nname = \"a\"\n[[acl]]\nname = \"l\"\ndeny = []\n[[service]]\nname = \"s\"\nvip = \"192.0.2.1\"\nports = [\"tcp/1\"]\npool = \"a\"\naffinity = \"source\" # sticky\n",
            Edit::SetService {
                name: "s".into(),
                patch: ServicePatch {
                    affinity: Some("none".into()),
                    acl: Some("l".into()),
                    tracking: Some("never".into()),
                    ..ServicePatch::default()
                },
            },
            "[[pool]]\nname = \"a\"\n[[acl]]\nname = \"l\"\ndeny = []\n[[service]]\nname = \"s\"\nvip = \"192.0.2.1\"\nports = [\"tcp/1\"]\npool = \"a\"\n# sticky\ntracking = \"never\"\nacl = \"l\"\n",
        ),
        (
            "[[pool]]\nname = \"a\"\n[[pool.backend]]\nname = \"x\"\naddress = \"10.0.0.1\"\nvlan = 7 # trunk\n",
            Edit::SetBackend {
                pool: "a".into(),
                name: "x".into(),
                patch: BackendPatch {
                    vlan: Some(0),
                    server_id: Some("0x2a".into()),
                    ..BackendPatch::default()
                },
            },
            "[[pool]]\nname = \"a\"\n[[pool.backend]]\nname = \"x\"\naddress = \"10.0.0.1\"\nserver_id = \"0x2a\"\n# trunk\n",
        ),
        // Services, and ports with comments between them.
        (
            "",
            Edit::AddPool(PoolSpec { name: "a".into(), slots: Some(11), check: Some(Box::new(tcp("1s"))) }),
            "[[pool]]\nname = \"a\"\nslots = 11\ncheck = { type = \"tcp\", port = 81, interval = \"1s\" }\n",
        ),
        (
            "[[pool]]\r\nname = \"a\"\r\n",
            Edit::AddService(ServiceSpec {
                name: "s".into(),
                vip: "192.0.2.1".into(),
                ports: vec!["tcp/1".into()],
                pool: "a".into(),
                ..ServiceSpec::default()
            }),
            "[[pool]]\r\nname = \"a\"\r\n\r\n[[service]]\r\nname = \"s\"\r\nvip = \"192.0.2.1\"\r\nports = [\"tcp/1\"]\r\npool = \"a\"\r\n",
        ),
        (
            "[[pool]]\nname = \"a\"\n[[service]]\nname = \"s\"\nvip = \"192.0.2.1\"\nports = [\n  \"tcp/1\", # one\n  \"tcp/2\", # two\n  \"tcp/3\", # three\n]\npool = \"a\"\n",
            set_ports("s", &["tcp/1", "tcp/3"]),
            "[[pool]]\nname = \"a\"\n[[service]]\nname = \"s\"\nvip = \"192.0.2.1\"\nports = [\n  \"tcp/1\", # one\n  # two\n  \"tcp/3\", # three\n]\npool = \"a\"\n",
        ),
        (
            "[[pool]]\nname = \"a\"\n[[service]]\nname = \"s\"\nvip = \"192.0.2.1\"\nports = [\"tcp/1\", 'tcp/2']\npool = \"a\"\n",
            set_ports("s", &["tcp/5", "tcp/2", "udp/9"]),
            "[[pool]]\nname = \"a\"\n[[service]]\nname = \"s\"\nvip = \"192.0.2.1\"\nports = [\"tcp/5\", 'tcp/2', \"udp/9\"]\npool = \"a\"\n",
        ),
    ];
    for (before, change, after) in cases {
        match edit(before, &change) {
            Ok(result) => assert_eq!(result, after, "\n{before}\n{change:?}\ngave\n{result}"),
            Err(error) => panic!("{before}\n{change:?}\n{error}"),
        }
    }
}

#[test]
fn a_refusal_says_why_in_the_askers_words() {
    let add_pool = |name: &str| Edit::AddPool(PoolSpec { name: name.into(), ..PoolSpec::default() });
    let cases = [
        (delete_backend("web", "w9"), "there is no backend \"web/w9\""),
        (delete_backend("wbe", "w1"), "there is no pool \"wbe\""),
        (add_pool("web"), "there is already a pool \"web\""),
        (add_backend("web", "w1", "10.0.0.9"), "there is already a backend \"web/w1\""),
        (
            add_pool("a b"),
            "pool \"a b\", name: \"a b\" is not a name: 1 to 63 letters, digits, '-', '_' or '.', not starting with '-' or '.'",
        ),
        (
            Edit::DeletePool { name: "web".into() },
            "pool \"web\" is in use by service \"www\", service \"www6\", service \"rtsp\", service \"rest\": delete them or point them at another pool first",
        ),
        (
            Edit::DeletePool { name: "sorry".into() },
            "pool \"sorry\" is in use by pool \"web\" as its fallback: delete them or point them at another pool first",
        ),
        (Edit::DeleteService { name: "ww".into() }, "there is no service \"ww\""),
        (
            add_backend("web", "w4", "10.1.0.11"),
            "pool \"web\", backend \"w4\", address: 10.1.0.11 is already the address of \"w1\": one backend, one address",
        ),
        (
            set_ports("www6", &[]),
            "service \"www6\", ports: a service needs at least one port: write ports = [\"tcp/80\"]",
        ),
        (
            set_ports("www", &["tcp/80", "tcp"]),
            "service \"www\", ports[1]: \"tcp\" is not a port: write \"tcp/80\", \"udp/6970-6999\" or \"sctp/*\", ports 1 to 65535",
        ),
    ];
    for (change, expected) in cases {
        assert_eq!(edit(example(), &change).unwrap_err().to_string(), expected);
    }
    let broken = edit("[lb]\nx = 1\n", &add_pool("p")).unwrap_err();
    assert!(matches!(broken, EditError::Broken(_)), "{broken}");
}

/// What a text put between quotes could break out of.
#[test]
fn values_cannot_smuggle_in_keys() {
    let evil = "10.0.0.9\"\nstate = \"maint";
    let error = edit(example(), &add_backend("web", "w9", evil)).unwrap_err();
    assert!(matches!(&error, EditError::Invalid(errors) if errors.len() == 1), "{error}");
}
