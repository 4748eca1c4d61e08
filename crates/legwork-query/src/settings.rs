//! The settings of a session that change answers, kept where DataFusion's functions can see them.

use std::any::Any;
use std::sync::Arc;

use datafusion::common::config::{ConfigEntry, ConfigExtension, ExtensionOptions};
use datafusion::common::{DataFusionError, Result};
use datafusion::config::ConfigOptions;

use crate::calendar::Calendars;
use crate::held::Held;

/// Settings under the prefix `legwork`.
#[derive(Clone, Debug, Default)]
pub(crate) struct LegworkSettings {
    /// `legwork.as_of`, microseconds: what `legwork_now()` is in this session.
    pub(crate) as_of_us: Option<i64>,
    /// What `legwork_now()` is in this query; pinned when it starts, so that all its parts agree.
    pub(crate) now_us: Option<i64>,
    /// The calendars, read when a query starts that counts business time.
    pub(crate) calendars: Arc<Calendars>,
    /// What the expressions of this query hold.
    pub(crate) held: Arc<Held>,
}

impl LegworkSettings {
    /// The settings in these options; none when DataFusion was set up without us.
    pub(crate) fn of(options: &ConfigOptions) -> Option<&LegworkSettings> {
        options.extensions.get::<LegworkSettings>()
    }
}

impl ConfigExtension for LegworkSettings {
    const PREFIX: &'static str = "legwork";
}

impl ExtensionOptions for LegworkSettings {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn cloned(&self) -> Box<dyn ExtensionOptions> {
        Box::new(self.clone())
    }

    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        match key {
            "as_of" => {
                self.as_of_us = parse_time(value).map_err(DataFusionError::Configuration)?;
                Ok(())
            }
            _ => Err(DataFusionError::Configuration(format!("unknown setting legwork.{key}: there is legwork.as_of"))),
        }
    }

    fn entries(&self) -> Vec<ConfigEntry> {
        let value = self.as_of_us.and_then(chrono::DateTime::from_timestamp_micros).map(|time| time.to_rfc3339());
        vec![ConfigEntry {
            key: "legwork.as_of".to_owned(),
            value,
            description: "what legwork_now() is in this session",
        }]
    }
}

/// A time as a user writes it, microseconds: RFC 3339, or a date with or without a time in UTC. Empty and `default` mean none.
pub(crate) fn parse_time(text: &str) -> Result<Option<i64>, String> {
    let text = text.trim();
    if text.is_empty() || text.eq_ignore_ascii_case("default") {
        return Ok(None);
    }
    match arrow::compute::kernels::cast_utils::string_to_timestamp_nanos(text) {
        Ok(nanos) => Ok(Some(nanos.div_euclid(1_000))),
        Err(_) => Err(format!("expected a time such as '2026-03-01T08:00:00Z', found {text:?}")),
    }
}
