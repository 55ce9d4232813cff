//! Configurations as a whole: what one would change, bringing it into force, and those that were.

use serde::{Deserialize, Serialize};

/// A configuration to be looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Proposal {
    /// The file's text. Files that it names are read from the directory of the daemon's configuration.
    pub text: String,
}

/// A configuration to be brought into force: it replaces the file's text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApplySpec {
    /// The file's text. Files that it names are read from the directory of the daemon's configuration.
    pub text: String,
    /// The configuration before comes back after so many seconds unless this one is confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm_seconds: Option<u64>,
    /// While it is not confirmed it comes back at once when more than so many percent of the backends that were `UP`
    /// go `DOWN`. 50 unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_down_percent: Option<u8>,
}

impl ApplySpec {
    /// [`Self::max_down_percent`] unless given.
    pub const MAX_DOWN_PERCENT: u8 = 50;
}

/// The configuration in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ConfigText {
    /// The file.
    pub path: String,
    /// Counts every configuration that took effect since the daemon was started.
    pub generation: u64,
    /// A digest of the text and of the files that it names: whoever sends it along with an order (`If-Match`) changes
    /// just the configuration that was looked at, or nothing.
    pub etag: String,
    /// The file's text.
    pub text: String,
}

/// What a configuration would change.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PlanView {
    /// Number of the configuration in force, which this is compared with.
    pub generation: u64,
    /// What tells it from others, see `GET /v1/config`.
    pub etag: String,
    /// Settings of `[lb]` that differ.
    pub settings: Vec<String>,
    /// Services that differ.
    pub services: Vec<ChangeView>,
    /// Pools that differ.
    pub pools: Vec<PoolPlanView>,
    /// Access lists that differ.
    pub acls: Vec<ChangeView>,
    /// Steps that the tables would go at once. New backends take slots later, when their checks succeed.
    pub steps: usize,
    /// Entries of tables that these steps write.
    pub writes: usize,
}

impl PlanView {
    /// Whether nothing would change.
    pub fn is_empty(&self) -> bool {
        let Self { generation: _, etag: _, settings, services, pools, acls, steps, writes: _ } = self;
        settings.is_empty() && services.is_empty() && pools.is_empty() && acls.is_empty() && *steps == 0
    }
}

/// Something that differs between two configurations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ChangeView {
    /// Its name.
    pub name: String,
    /// What becomes of it.
    pub change: ChangeKind,
    /// What differs of it, a few words each.
    pub what: Vec<String>,
}

/// What becomes of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// It comes.
    Added,
    /// It goes.
    Removed,
    /// It becomes different.
    Changed,
}

/// What becomes of a pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PoolPlanView {
    /// Its name.
    pub name: String,
    /// What becomes of it.
    pub change: ChangeKind,
    /// What differs of it, a few words each.
    pub what: Vec<String>,
    /// Its backends that differ.
    pub backends: Vec<ChangeView>,
    /// Size of its table.
    pub slots: u32,
    /// Slots that get another owner, once new backends are `UP`.
    pub slots_moved: u32,
    /// The same in percent.
    pub percent_moved: f64,
    /// Flows that are remembered now. They stay where they are.
    pub remembered: u32,
    /// Those of them on backends that leave, which go on serving them until they end.
    pub remembered_on_leaving: u32,
}

/// Which configuration of the history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PastQuery {
    /// Its number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
}

/// A configuration that was in force, or is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PastView {
    /// Its number in the history.
    pub number: u64,
    /// When it came into force: RFC 3339, UTC.
    pub time: String,
    /// How, one sentence.
    pub said: String,
    /// Whether it is in force.
    pub in_force: bool,
    /// The file's text: only where one is asked for by its number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}
