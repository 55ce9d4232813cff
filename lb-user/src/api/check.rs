//! Health checks as they are asked for.

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

/// A health check as written in the file; all but the type optional. The program of an `exec` check is missing on purpose:
/// what the daemon runs is for those to say who may write its file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckSpec {
    /// `tcp`, `http`, `https`, `udp`, `dns` or `icmp`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `vip` or `backend`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Port to probe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Path of an HTTP or HTTPS check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// `Host` header of an HTTP or HTTPS check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// What the check wants: a status, a response code, a text in the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect: Option<Expect>,
    /// Name that an HTTPS server is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// Whether its certificate must be valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<bool>,
    /// File of the certificates that it must lead to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// Payload of a UDP check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub send: Option<String>,
    /// Name that a DNS check asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// Type of record that it asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<String>,
    /// What one of the answers must be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// `2s`, `500ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<String>,
    /// The same while the state changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fast_interval: Option<String>,
    /// `1s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// Percent by which intervals vary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<u8>,
    /// Successes that bring a backend up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rise: Option<u32>,
    /// Failures that take it down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fall: Option<u32>,
    /// Time within which falls count together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damping: Option<String>,
}

/// A check that is written as an object: serde would take a list for its fields in their order.
pub(super) fn not_a_list<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Box<CheckSpec>>, D::Error> {
    let fields = Option::<serde_json::Map<_, _>>::deserialize(deserializer)?;
    let spec = fields.map(|fields| CheckSpec::deserialize(serde_json::Value::Object(fields)));
    Ok(spec.transpose().map_err(D::Error::custom)?.map(Box::new))
}

/// What a check wants to see.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(untagged)]
pub enum Expect {
    /// The status of HTTP and HTTPS checks.
    Status(u16),
    /// The response code of DNS checks, a text in the answer to UDP checks.
    Text(String),
}
