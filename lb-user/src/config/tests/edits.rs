//! Edits: what they do to the text, and that the result means what was asked.

use proptest::prelude::*;

use super::super::{EditError, edit, example, parse};
use crate::{
    api::{BackendPatch, BackendSpec, CheckSpec, Edit, PoolPatch, PoolSpec, ServicePatch, ServiceSpec},
    model::service::{AdminState, Desired},
};

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
    Edit::SetPool { name: pool.into(), patch: PoolPatch { check: Some(check) } }
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
        // Services, and ports with comments between them.
        (
            "",
            Edit::AddPool(PoolSpec { name: "a".into(), slots: Some(11), check: Some(tcp("1s")) }),
            "[[pool]]\nname = \"a\"\nslots = 11\ncheck = { type = \"tcp\", port = 81, interval = \"1s\" }\n",
        ),
        (
            "[[pool]]\r\nname = \"a\"\r\n",
            Edit::AddService(ServiceSpec {
                name: "s".into(),
                vip: "192.0.2.1".into(),
                ports: vec!["tcp/1".into()],
                pool: "a".into(),
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
            "pool \"web\" is in use by services \"www\", \"www6\": delete them or point them at another pool first",
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

/// How the tables of a generated file are written.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Style {
    Sections,
    Inline,
    InlineLines { trailing_comma: bool },
}

#[derive(Clone, Debug)]
struct Generated {
    /// For each pool: style of its backends, number of them, form of its check.
    pools: Vec<(Style, usize, u8)>,
    /// For each service: number of its ports, pool.
    services: Vec<(usize, usize)>,
    services_inline: bool,
    blank_lines: bool,
    crlf: bool,
    final_newline: bool,
}

impl Generated {
    /// The text. Each line ends in a comment that names what it belongs to: `#12 p0/b1;`.
    fn text(&self) -> String {
        let mut lines: Vec<(String, String)> = Vec::new();
        let mut put = |line: String, owner: &str| lines.push((line, owner.to_owned()));
        put("[lb]".into(), "lb");
        put("interfaces = ['eth0']".into(), "lb");
        if self.services_inline {
            lines.clear();
            let mut put = |line: String, owner: &str| lines.push((line, owner.to_owned()));
            put("service = [".into(), "services");
            for (index, service) in self.services.iter().enumerate() {
                put(format!("  {{ {} }},", self.service(index, *service).join(", ")), &format!("s{index}"));
            }
            put("]".into(), "services");
        }
        let mut put = |line: String, owner: &str| lines.push((line, owner.to_owned()));
        for (p, &(style, backends, check)) in self.pools.iter().enumerate() {
            let pool = format!("p{p}");
            put("[[pool]]".into(), &pool);
            put(format!("name  = 'p{p}'"), &pool);
            match check {
                1 => put("check = { type = 'http', path = '/x', rise = 4 }".into(), &pool),
                2 => {
                    put("check.type = 'tcp'".into(), &pool);
                    put("check.port = 7".into(), &pool);
                }
                _ => {}
            }
            let fields = |b: usize| {
                [format!("name = 'b{b}'"), format!("address = '10.0.{p}.{}'", b + 1), "weight = 7".into()]
            };
            match style {
                Style::Inline => {
                    let all: Vec<String> =
                        (0..backends).map(|b| format!("{{{}}}", fields(b).join(","))).collect();
                    put(format!("backend = [{}]", all.join(" , ")), &pool);
                }
                Style::InlineLines { trailing_comma } => {
                    put("backend = [".into(), &pool);
                    for b in 0..backends {
                        let comma = if trailing_comma || b + 1 < backends { "," } else { "" };
                        put(format!("    {{ {} }}{comma}", fields(b).join(", ")), &format!("p{p}/b{b}"));
                    }
                    put("]".into(), &pool);
                }
                Style::Sections => {}
            }
            if check == 3 {
                put("[pool.check]".into(), &pool);
                put("type = 'http'".into(), &pool);
            }
            if style == Style::Sections {
                for b in 0..backends {
                    put("  [[pool.backend]]".into(), &format!("p{p}/b{b}"));
                    for field in fields(b) {
                        put(format!("  {field}"), &format!("p{p}/b{b}"));
                    }
                }
            }
        }
        if !self.services_inline {
            for (index, service) in self.services.iter().enumerate() {
                put("[[service]]".into(), &format!("s{index}"));
                for field in self.service(index, *service) {
                    put(field, &format!("s{index}"));
                }
            }
        }
        let mut text = String::new();
        for (number, (line, owner)) in lines.iter().enumerate() {
            if self.blank_lines && line.trim_start().starts_with("[[") {
                text.push('\n');
            }
            text.push_str(&format!("{line} #{number} {owner};\n"));
        }
        if !self.final_newline {
            text.pop();
        }
        if self.crlf { text.replace('\n', "\r\n") } else { text }
    }

    fn service(&self, index: usize, (ports, pool): (usize, usize)) -> [String; 4] {
        let ports: Vec<String> = (0..ports).map(|port| format!("'tcp/{}'", port + 80)).collect();
        [
            format!("name = 's{index}'"),
            format!("vip = '192.0.2.{}'", index + 1),
            format!("ports = [{}]", ports.join(", ")),
            format!("pool = 'p{}'", pool % self.pools.len()),
        ]
    }
}

fn generated() -> impl Strategy<Value = Generated> {
    let style = prop_oneof![
        Just(Style::Sections),
        Just(Style::Inline),
        Just(Style::InlineLines { trailing_comma: false }),
        Just(Style::InlineLines { trailing_comma: true })
    ];
    let pools = proptest::collection::vec((style, 0..4usize, 0..4u8), 1..4);
    let services = proptest::collection::vec((1..4usize, 0..4usize), 0..4);
    (pools, services, any::<[bool; 4]>()).prop_map(
        |(pools, services, [services_inline, blank_lines, crlf, final_newline])| Generated {
            pools,
            services,
            services_inline,
            blank_lines,
            crlf,
            final_newline,
        },
    )
}

/// An edit by numbers: what, of which pool, of which entry, to what.
type Numbers = (u8, usize, usize, u8);

fn edit_of(desired: &Desired, (what, first, second, value): Numbers) -> Option<Edit> {
    let pool = desired.pools.get(first % desired.pools.len().max(1));
    let backend = pool.and_then(|pool| pool.backends.get(second % pool.backends.len().max(1)));
    let service = desired.services.get(first % desired.services.len().max(1));
    let pool_name = || Some(pool?.name.to_string());
    let patch = BackendPatch {
        address: (value & 1 != 0).then(|| format!("10.9.0.{value}")),
        via: (value & 2 != 0).then(|| "ipip".into()),
        weight: (value & 4 != 0).then(|| u16::from(value)),
        state: [None, Some(AdminState::Ready), Some(AdminState::Drain), Some(AdminState::Maint)]
            [usize::from(value >> 4 & 3)],
    };
    let ports: Vec<String> = (1..=u16::from(value % 5) + 1)
        .map(|n| format!("tcp/{}", 79 + n * (1 + u16::from(value >> 6))))
        .collect();
    Some(match what % 9 {
        0 => Edit::AddService(ServiceSpec {
            name: "new".into(),
            vip: "192.0.2.200".into(),
            ports,
            pool: pool_name()?,
        }),
        1 => Edit::SetService {
            name: service?.name.to_string(),
            patch: ServicePatch {
                vip: (value & 1 != 0).then(|| "2001:db8::9".into()),
                ports: Some(ports),
                pool: pool_name(),
            },
        },
        2 => Edit::DeleteService { name: service?.name.to_string() },
        3 => Edit::AddPool(PoolSpec {
            name: "new".into(),
            slots: (value & 1 != 0).then_some(251),
            check: (value & 2 != 0).then(|| tcp("2s")),
        }),
        4 if value & 1 != 0 => set_check(&pool_name()?, tcp("5s")),
        4 => set_check(
            &pool_name()?,
            CheckSpec { kind: "http".into(), path: Some("/y".into()), fall: Some(9), ..CheckSpec::default() },
        ),
        5 => Edit::DeletePool { name: pool_name()? },
        6 => add_backend(&pool_name()?, "new", "10.8.0.1"),
        7 => Edit::SetBackend { pool: pool_name()?, name: backend?.name.to_string(), patch },
        _ => delete_backend(&pool_name()?, &backend?.name.to_string()),
    })
}

/// The same edit on the model, by way of values only.
fn expected(mut desired: Desired, edit: &Edit) -> Desired {
    // The values' own meaning is the parser's business: a minimal file of its own says what they mean.
    let one_pool = |rest: &str| parse(&format!("[[pool]]\nname = 'new'\n{rest}\n")).unwrap().pools.remove(0);
    let one_service = |vip: &str, ports: &[String]| {
        let text = format!(
            "[[pool]]\nname = 'p'\n[[service]]\nname = 'new'\nvip = '{vip}'\nports = {ports:?}\npool = 'p'\n"
        );
        parse(&text).unwrap().services.remove(0)
    };
    let check = |spec: &CheckSpec| {
        let text = if spec.kind == "tcp" {
            format!("check = {{ type = 'tcp', port = 81, interval = '{}' }}", spec.interval.as_ref().unwrap())
        } else {
            "check = { type = 'http', path = '/y', fall = 9 }".to_owned()
        };
        one_pool(&text).check
    };
    let name = |text: &str| crate::model::service::Name::new(text).unwrap();
    match edit {
        Edit::AddService(spec) => {
            let mut service = one_service(&spec.vip, &spec.ports);
            service.pool = name(&spec.pool);
            desired.services.push(service);
        }
        Edit::SetService { name: which, patch } => {
            let service = desired.services.iter_mut().find(|service| service.name.as_str() == which).unwrap();
            let vip = patch.vip.clone().unwrap_or_else(|| service.vip.to_string());
            let new = one_service(&vip, patch.ports.as_ref().unwrap());
            (service.vip, service.ports, service.pool) =
                (new.vip, new.ports, name(patch.pool.as_ref().unwrap()));
        }
        Edit::DeleteService { name } => desired.services.retain(|service| service.name.as_str() != name),
        Edit::AddPool(spec) => {
            let mut pool = one_pool("");
            pool.slots = spec.slots.unwrap_or(pool.slots);
            pool.check = spec.check.as_ref().and_then(check);
            desired.pools.push(pool);
        }
        Edit::SetPool { name, patch } => {
            let pool = desired.pools.iter_mut().find(|pool| pool.name.as_str() == name).unwrap();
            pool.check = patch.check.as_ref().and_then(check);
        }
        Edit::DeletePool { name } => desired.pools.retain(|pool| pool.name.as_str() != name),
        Edit::AddBackend { pool, backend } => {
            let new = one_pool(&format!("backend = [{{ name = 'new', address = '{}' }}]", backend.address));
            let pool = desired.pools.iter_mut().find(|candidate| candidate.name.as_str() == pool).unwrap();
            pool.backends.extend(new.backends);
        }
        Edit::SetBackend { pool, name, patch } => {
            let pool = desired.pools.iter_mut().find(|candidate| candidate.name.as_str() == pool).unwrap();
            let backend = pool.backends.iter_mut().find(|backend| backend.name.as_str() == name).unwrap();
            backend.address = patch.address.as_ref().map_or(backend.address, |text| text.parse().unwrap());
            if patch.via.is_some() {
                backend.via = crate::model::service::Via::Ipip;
            }
            backend.weight = patch.weight.unwrap_or(backend.weight);
            backend.state = patch.state.unwrap_or(backend.state);
        }
        Edit::DeleteBackend { pool, name } => {
            let pool = desired.pools.iter_mut().find(|candidate| candidate.name.as_str() == pool).unwrap();
            pool.backends.retain(|backend| backend.name.as_str() != name);
        }
    }
    desired
}

/// Owners (as in the comments) whose lines an edit may change, and whether it deletes these.
fn touched(edit: &Edit) -> (String, bool) {
    match edit {
        Edit::AddService(_) | Edit::AddPool(_) => ("-".into(), false),
        Edit::SetService { name, .. } | Edit::SetPool { name, .. } => (name.clone(), false),
        Edit::DeleteService { name } | Edit::DeletePool { name } => (name.clone(), true),
        Edit::AddBackend { pool, .. } | Edit::SetBackend { pool, .. } => (pool.clone(), false),
        Edit::DeleteBackend { pool, name } => (format!("{pool}/{name}"), true),
    }
}

proptest! {
    #[test]
    fn an_edited_file_means_the_edited_model_and_keeps_everything_else(
        generated in generated(),
        numbers in proptest::collection::vec(any::<Numbers>(), 1..6),
    ) {
        let mut text = generated.text();
        for numbers in numbers {
            let before = parse(&text).map_err(|errors| TestCaseError::fail(format!("{text}\n{errors}")))?;
            let Some(change) = edit_of(&before, numbers) else { continue };
            let after = match edit(&text, &change) {
                Ok(after) => after,
                Err(EditError::InUse { .. } | EditError::Exists { .. }) => continue,
                // Numbers may give two backends one address, or two services one port.
                Err(EditError::Invalid(errors)) if errors.iter().all(|error| error.contains("already")) => continue,
                Err(error) => return Err(TestCaseError::fail(format!("{text}\n{change:?}\n{error}"))),
            };
            let means = parse(&after).map_err(|errors| TestCaseError::fail(format!("{after}\n{errors}")))?;
            prop_assert_eq!(&means, &expected(before, &change), "{}\n{:?}\n{}", text, change, after);

            let (owner, deletes) = touched(&change);
            let is_touched = |line: &str| {
                line.contains(&format!(" {owner};")) || line.contains(&format!(" {owner}/"))
            };
            let mut left = after.lines();
            // Lines without a comment are those that edits before this one added.
            for line in text.lines().filter(|line| line.contains('#') && !is_touched(line)) {
                // A list on one line stands in its pool's line.
                let may_change = matches!(change, Edit::DeleteBackend { .. }) && line.starts_with("backend = [{");
                prop_assert!(may_change || left.any(|kept| kept == line), "lost {}\n{}\n{:?}\n{}", line, text, change, after);
            }
            if !deletes {
                for line in text.lines() {
                    let comment = line.find('#').map_or("", |at| &line[at..]);
                    prop_assert!(after.contains(comment), "lost {}\n{:?}\n{}", comment, change, after);
                }
            }
            text = after;
        }
    }

    /// However oddly people space and comment a file.
    #[test]
    fn an_edit_of_an_oddly_written_file_means_the_edited_model(
        oddities in proptest::collection::vec(
            (any::<prop::sample::Index>(), prop::sample::select(vec![" ", "\n", "#,{[ü\n", "\t", "\r\n", ",", "\n# x = 1\n\n"])), 0..12),
        lists_inline: bool,
        numbers: Numbers,
    ) {
        let inline = "pool=[{name='web',check={type='tcp'},backend=[{name='w1',address='10.0.0.1',state='drain'},\
                      {name='w2',address='10.0.0.2'}]},{name='p',check.type='http',check.port=1}]\n\
                      service=[{name='www',vip='192.0.2.1',ports=['tcp/80','udp/81'],pool='web'}]";
        let mut text = if lists_inline { inline.to_owned() } else { example().to_owned() };
        for (index, oddity) in oddities {
            // Between tokens for the most part: after a bracket, a brace, a comma or an equals sign.
            let places: Vec<usize> = text.match_indices(['[', ']', '{', '}', ',', '=', '\n']).map(|(at, _)| at).collect();
            let at = *index.get(&places);
            text.insert_str(at + usize::from(oddity.len() % 2 == 1), oddity);
        }
        let Ok(before) = parse(&text) else { return Ok(()) };
        let Some(change) = edit_of(&before, numbers) else { return Ok(()) };
        match edit(&text, &change) {
            Ok(after) => prop_assert_eq!(parse(&after).unwrap(), expected(before, &change), "{}\n{:?}\n{}", text, change, after),
            Err(EditError::InUse { .. }) => {}
            Err(EditError::Invalid(errors))
                if errors.iter().all(|error| error.contains("already") || error.contains("has a TCP port")) => {}
            Err(error) => return Err(TestCaseError::fail(format!("{text}\n{change:?}\n{error}"))),
        }
    }
}
