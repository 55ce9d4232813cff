//! Edits asked for by the command line or the API, carried out on the text of the file.

use toml_edit::{Array, Value};

use super::{
    error::ConfigErrors,
    keys, parse,
    splice::{Fields, Step, Text, inline_table},
};
use crate::{
    api::{
        BackendPatch, BackendSpec, CheckSpec, Edit, Expect, NONE, PoolSpec, Refusal, RefusalKind,
        ServicePatch, ServiceSpec,
    },
    model::{
        service::{AdminState, Desired},
        source::Source,
    },
};

/// Why an edit was refused. The text is as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// The file itself, before the edit, has errors.
    #[error("the configuration file has errors, repair it first:\n{0}")]
    Broken(#[source] ConfigErrors),
    /// The result would not be valid: every reason, one sentence each.
    #[error("{}", .0.join("\n"))]
    Invalid(Vec<String>),
    /// What was to be changed does not exist.
    #[error("there is no {what} \"{name}\"")]
    NotFound {
        /// `service`, `pool`, `backend`.
        what: &'static str,
        /// Its name; of a backend, `pool/backend`.
        name: String,
    },
    /// What was to be added exists.
    #[error("there is already a {what} \"{name}\"")]
    Exists {
        /// `service`, `pool`, `backend`.
        what: &'static str,
        /// Its name; of a backend, `pool/backend`.
        name: String,
    },
    /// The pool that was to be removed has users.
    #[error("pool \"{pool}\" is in use by {}: delete them or point them at another pool first", .users.join(", "))]
    InUse {
        /// The pool.
        pool: String,
        /// The services that point at it, and the pools that it helps out.
        users: Vec<String>,
    },
}

impl From<EditError> for Refusal {
    fn from(error: EditError) -> Self {
        let kind = match &error {
            EditError::Broken(_) | EditError::Exists { .. } | EditError::InUse { .. } => {
                RefusalKind::Conflict
            }
            EditError::Invalid(_) => RefusalKind::Invalid,
            EditError::NotFound { .. } => RefusalKind::NotFound,
        };
        let errors = match error {
            EditError::Invalid(errors) => errors,
            other => other.to_string().lines().map(str::to_owned).collect(),
        };
        Self { kind, errors }
    }
}

/// Carries out an edit on the text of a configuration. Comments, order and formatting of everything else stay;
/// a new entry stands after its siblings and looks like them. With a removed entry go the comments in it, not
/// those above it.
///
/// # Errors
/// See [`EditError`].
pub fn edit(source: &Source, edit: &Edit) -> Result<String, EditError> {
    let Source { text, files } = source;
    let before = parse(text, files).map_err(EditError::Broken)?;
    require(&before, edit)?;
    let mut after = Text(text.clone());
    carry_out(&mut after, &before, edit);
    match parse(&after.0, files) {
        Ok(_) => Ok(after.0),
        Err(errors) => Err(EditError::Invalid(errors.0.iter().map(super::ConfigError::sentence).collect())),
    }
}

/// Checks that what is to be changed exists, and what is to be added does not.
fn require(before: &Desired, edit: &Edit) -> Result<(), EditError> {
    let has_service = |name: &str| before.services.iter().any(|service| service.name.as_str() == name);
    let has_pool = |name: &str| before.pools.iter().any(|pool| pool.name.as_str() == name);
    let has_backend = |pool: &str, name: &str| {
        let mut pools = before.pools.iter().filter(|candidate| candidate.name.as_str() == pool);
        pools.any(|pool| pool.backends.iter().any(|backend| backend.name.as_str() == name))
    };
    let exists = |is: bool, what: &'static str, name: &str| match is {
        true => Ok(()),
        false => Err(EditError::NotFound { what, name: name.to_owned() }),
    };
    let is_new = |is: bool, what: &'static str, name: &str| match is {
        true => Err(EditError::Exists { what, name: name.to_owned() }),
        false => Ok(()),
    };
    match edit {
        Edit::AddService(spec) => is_new(has_service(&spec.name), "service", &spec.name),
        Edit::SetService { name, .. } | Edit::DeleteService { name } => {
            exists(has_service(name), "service", name)
        }
        Edit::AddPool(spec) => is_new(has_pool(&spec.name), "pool", &spec.name),
        Edit::SetPool { name, .. } => exists(has_pool(name), "pool", name),
        Edit::DeletePool { name } => {
            exists(has_pool(name), "pool", name)?;
            let services = before.services.iter().filter(|service| service.pool.as_str() == name);
            let helped = before.pools.iter().filter(|pool| {
                pool.shortage.fallback.as_ref().is_some_and(|fallback| fallback.as_str() == name)
            });
            let users: Vec<String> = services
                .map(|service| format!("service \"{}\"", service.name))
                .chain(helped.map(|pool| format!("pool \"{}\" as its fallback", pool.name)))
                .collect();
            if users.is_empty() { Ok(()) } else { Err(EditError::InUse { pool: name.clone(), users }) }
        }
        Edit::AddBackend { pool, backend } => {
            exists(has_pool(pool), "pool", pool)?;
            is_new(has_backend(pool, &backend.name), "backend", &format!("{pool}/{}", backend.name))
        }
        Edit::SetBackend { pool, name, .. } | Edit::DeleteBackend { pool, name } => {
            exists(has_pool(pool), "pool", pool)?;
            exists(has_backend(pool, name), "backend", &format!("{pool}/{name}"))
        }
    }
}

fn carry_out(text: &mut Text, before: &Desired, edit: &Edit) {
    match edit {
        Edit::AddService(spec) => text.add(&[], "service", &service_fields(spec)),
        Edit::SetService { name, patch } => set_service(text, name, patch),
        Edit::DeleteService { name } => text.remove(&[Step::Named("service", name)]),
        Edit::AddPool(spec) => text.add(&[], "pool", &pool_fields(spec)),
        Edit::SetPool { name, patch } => {
            let had_check =
                before.pools.iter().any(|pool| pool.name.as_str() == name && pool.check.is_some());
            if let Some(check) = &patch.check {
                set_check(text, name, check, had_check);
            }
        }
        Edit::DeletePool { name } => text.remove(&[Step::Named("pool", name)]),
        Edit::AddBackend { pool, backend } => {
            text.add(&[Step::Named("pool", pool)], "backend", &backend_fields(backend));
        }
        Edit::SetBackend { pool, name, patch } => set_backend(text, pool, name, patch),
        Edit::DeleteBackend { pool, name } => {
            text.remove(&[Step::Named("pool", pool), Step::Named("backend", name)]);
        }
    }
}

fn service_fields(spec: &ServiceSpec) -> Fields {
    let ServiceSpec { name, vip, ports, pool, affinity, acl, tracking } = spec;
    let mut fields: Fields = vec![
        ("name", name.into()),
        ("vip", vip.into()),
        ("ports", ports.iter().collect::<Array>().into()),
        ("pool", pool.into()),
    ];
    let optional = [("tracking", tracking), ("affinity", affinity), ("acl", acl)];
    fields.extend(optional.into_iter().filter_map(|(key, text)| Some((key, text.as_ref()?.into()))));
    fields
}

fn set_service(text: &mut Text, name: &str, patch: &ServicePatch) {
    let ServicePatch { vip, ports, pool, affinity, acl, tracking } = patch;
    let path = [Step::Named("service", name)];
    if let Some(vip) = vip {
        text.set(&path, "vip", Some(&vip.into()));
    }
    if let Some(ports) = ports {
        text.set_texts(&path, "ports", ports);
    }
    if let Some(pool) = pool {
        text.set(&path, "pool", Some(&pool.into()));
    }
    for (key, wanted) in [("tracking", tracking), ("affinity", affinity), ("acl", acl)] {
        set_or_remove(text, &path, key, wanted.as_deref());
    }
}

/// Sets a key whose absence means something, too.
fn set_or_remove(text: &mut Text, path: &[Step<'_>], key: &'static str, wanted: Option<&str>) {
    match wanted {
        None => {}
        Some(NONE) => text.set(path, key, None),
        Some(word) => text.set(path, key, Some(&word.into())),
    }
}

fn pool_fields(spec: &PoolSpec) -> Fields {
    let PoolSpec { name, slots, check } = spec;
    let mut fields: Fields = vec![("name", name.into())];
    fields.extend(slots.map(|slots| ("slots", i64::from(slots).into())));
    fields.extend(check.as_ref().and_then(|check| Some(("check", check_value(check)?))));
    fields
}

/// The keys of a check that are given, in the order of the table of keys.
fn check_fields(spec: &CheckSpec) -> Vec<(&'static str, Option<Value>)> {
    let text = |text: &Option<String>| text.as_ref().map(Value::from);
    let number = |number: Option<u32>| number.map(|number| i64::from(number).into());
    let expect = spec.expect.as_ref().map(|expect| match expect {
        Expect::Status(status) => i64::from(*status).into(),
        Expect::Text(text) => text.into(),
    });
    let fields = vec![
        ("type", Some((&spec.kind).into())),
        ("to", text(&spec.to)),
        ("port", number(spec.port.map(u32::from))),
        ("path", text(&spec.path)),
        ("host", text(&spec.host)),
        ("expect", expect),
        ("server_name", text(&spec.server_name)),
        ("verify", spec.verify.map(Value::from)),
        ("ca", text(&spec.ca)),
        ("send", text(&spec.send)),
        ("query", text(&spec.query)),
        ("record", text(&spec.record)),
        ("answer", text(&spec.answer)),
        ("command", None),
        ("interval", text(&spec.interval)),
        ("fast_interval", text(&spec.fast_interval)),
        ("timeout", text(&spec.timeout)),
        ("jitter", number(spec.jitter.map(u32::from))),
        ("rise", number(spec.rise)),
        ("fall", number(spec.fall)),
        ("damping", text(&spec.damping)),
    ];
    debug_assert!(keys::CHECK.names().eq(fields.iter().map(|(key, _)| *key)));
    fields
}

/// The check between braces. Always `Some`: what was just printed is TOML.
fn check_value(spec: &CheckSpec) -> Option<Value> {
    let given = check_fields(spec).into_iter().filter_map(|(key, value)| Some((key, value?)));
    inline_table(&given.collect()).parse().ok()
}

/// Makes the pool's check what `spec` says. An existing one keeps its form and its comments, key by key.
fn set_check(text: &mut Text, pool: &str, spec: &CheckSpec, had_check: bool) {
    let pool = Step::Named("pool", pool);
    if had_check {
        for (key, value) in check_fields(spec) {
            text.set(&[pool, Step::Key("check")], key, value.as_ref());
        }
    } else {
        text.set(&[pool], "check", check_value(spec).as_ref());
    }
}

fn backend_fields(spec: &BackendSpec) -> Fields {
    let BackendSpec { name, address, via, weight, vlan, server_id } = spec;
    let mut fields: Fields = vec![("name", name.into()), ("address", address.into())];
    fields.extend(via.as_ref().map(|via| ("via", via.into())));
    fields.extend(weight.map(|weight| ("weight", i64::from(weight).into())));
    fields.extend(vlan.map(|vlan| ("vlan", i64::from(vlan).into())));
    fields.extend(server_id.as_ref().map(|id| ("server_id", id.into())));
    fields
}

fn set_backend(text: &mut Text, pool: &str, name: &str, patch: &BackendPatch) {
    let BackendPatch { address, via, weight, state, drain_until, drain_seconds: _, vlan, server_id } = patch;
    let path = [Step::Named("pool", pool), Step::Named("backend", name)];
    if let Some(address) = address {
        text.set(&path, "address", Some(&address.into()));
    }
    if let Some(via) = via {
        text.set(&path, "via", Some(&via.into()));
    }
    if let Some(weight) = weight {
        text.set(&path, "weight", Some(&i64::from(*weight).into()));
    }
    if let Some(vlan) = vlan {
        let value = Value::from(i64::from(*vlan));
        text.set(&path, "vlan", (*vlan != 0).then_some(&value));
    }
    set_or_remove(text, &path, "server_id", server_id.as_deref());
    let word = match state {
        None => return,
        // What holds anyway needs no key.
        Some(AdminState::Ready) => None,
        Some(AdminState::Drain) => Some(Value::from("drain")),
        Some(AdminState::Maint) => Some(Value::from("maint")),
    };
    text.set(&path, "state", word.as_ref());
    // A drain's end goes with the drain.
    let until = drain_until.as_deref().map(Value::from);
    text.set(&path, "drain_until", until.as_ref());
}
