//! The one clock of the views.

use std::sync::Arc;

use datafusion::config::ConfigOptions;
use legwork_types::LiveTables;

use crate::NowSource;
use crate::settings::LegworkSettings;

/// Tells what `legwork_now()` is.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    live: Arc<dyn LiveTables>,
    source: NowSource,
}

impl Clock {
    pub(crate) fn new(live: Arc<dyn LiveTables>, source: NowSource) -> Clock {
        Clock { live, source }
    }

    /// Now for a query with these options, microseconds: pinned, else as of, else by the source.
    pub(crate) fn now_us(&self, options: &ConfigOptions) -> i64 {
        let settings = LegworkSettings::of(options);
        settings.and_then(|s| s.now_us.or(s.as_of_us)).unwrap_or_else(|| match self.source {
            NowSource::System => system_us(),
            NowSource::Event { known_us } => self.live.newest_event_time_us().max(known_us).unwrap_or_else(system_us),
            NowSource::Fixed(now_us) => now_us,
        })
    }
}

fn system_us() -> i64 {
    chrono::Utc::now().timestamp_micros()
}
