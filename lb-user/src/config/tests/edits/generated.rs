//! Edits of files in every style: the result means the edited model, and all else stays.

use proptest::prelude::*;

use super::{
    super::{
        super::{EditError, example},
        parse,
    },
    add_backend, delete_backend, edit, set_check, tcp,
};
use crate::{
    api::{BackendPatch, CheckSpec, Edit, PoolSpec, ServicePatch, ServiceSpec},
    model::service::{AdminState, Desired, Tracking},
};

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
        drain_until: (value >> 4 & 3 == 2 && value & 1 != 0).then(|| "2026-01-31T12:00:00Z".to_owned()),
        drain_seconds: None,
        vlan: (value & 8 != 0).then(|| u16::from(value >> 6)),
        server_id: (value & 64 != 0).then(|| format!("0x00{value:02x}")),
    };
    let affinity = (value & 8 != 0).then(|| "source/24".to_owned());
    let ports: Vec<String> = (1..=u16::from(value % 5) + 1)
        .map(|n| format!("tcp/{}", 79 + n * (1 + u16::from(value >> 6))))
        .collect();
    Some(match what % 9 {
        0 => Edit::AddService(ServiceSpec {
            name: "new".into(),
            vip: "192.0.2.200".into(),
            ports,
            pool: pool_name()?,
            affinity,
            ..ServiceSpec::default()
        }),
        1 => Edit::SetService {
            name: service?.name.to_string(),
            patch: ServicePatch {
                vip: (value & 1 != 0).then(|| "2001:db8::9".into()),
                ports: Some(ports),
                pool: pool_name(),
                affinity: affinity.or_else(|| (value & 16 != 0).then(|| "none".to_owned())),
                tracking: (value & 32 != 0).then(|| "never".to_owned()),
                acl: None,
            },
        },
        2 => Edit::DeleteService { name: service?.name.to_string() },
        3 => Edit::AddPool(PoolSpec {
            name: "new".into(),
            slots: (value & 1 != 0).then_some(251),
            check: (value & 2 != 0).then(|| Box::new(tcp("2s"))),
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
            service.affinity = spec.affinity.as_ref().map(|_| 24);
            desired.services.push(service);
        }
        Edit::SetService { name: which, patch } => {
            let service = desired.services.iter_mut().find(|service| service.name.as_str() == which).unwrap();
            let vip = patch.vip.clone().unwrap_or_else(|| service.vip.to_string());
            let new = one_service(&vip, patch.ports.as_ref().unwrap());
            (service.vip, service.ports, service.pool) =
                (new.vip, new.ports, name(patch.pool.as_ref().unwrap()));
            match patch.affinity.as_deref() {
                None => {}
                Some("none") => service.affinity = None,
                Some(_) => service.affinity = Some(24),
            }
            if patch.tracking.is_some() {
                (service.flows.tcp, service.flows.udp) = (Tracking::Never, Tracking::Never);
            }
        }
        Edit::DeleteService { name } => desired.services.retain(|service| service.name.as_str() != name),
        Edit::AddPool(spec) => {
            let mut pool = one_pool("");
            pool.slots = spec.slots.unwrap_or(pool.slots);
            pool.check = spec.check.as_deref().and_then(check);
            desired.pools.push(pool);
        }
        Edit::SetPool { name, patch } => {
            let pool = desired.pools.iter_mut().find(|pool| pool.name.as_str() == name).unwrap();
            pool.check = patch.check.as_deref().and_then(check);
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
            if let Some(state) = patch.state {
                let until = patch.drain_until.as_deref().and_then(crate::model::timestamp::from_rfc3339);
                (backend.state, backend.drain_until) = (state, until);
            }
            backend.vlan = patch.vlan.map_or(backend.vlan, |vlan| (vlan != 0).then_some(vlan));
            backend.server_id = patch.server_id.as_ref().map_or(backend.server_id, |id| id.parse().ok());
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
                if errors.iter().all(|error| {
                    ["already", " port to probe", "server ID"].iter().any(|words| error.contains(words))
                }) => {}
            Err(error) => return Err(TestCaseError::fail(format!("{text}\n{change:?}\n{error}"))),
        }
    }
}
