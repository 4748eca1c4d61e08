//! `legwork explain`: a distance, ping by ping.

use anyhow::{Result, bail};

use crate::args::ExplainArgs;
use crate::exit::Failure;
use crate::topics;

pub(crate) async fn run(args: ExplainArgs) -> Result<()> {
    let config = super::quiet(&args.config.overrides())?;
    let [from_us, to_us] = [&args.from, &args.to].map(|time| topics::parse_time(time).map_err(Failure::Usage));
    if from_us? >= to_us? {
        bail!(Failure::Usage(format!("--from {} is not before --to {}", args.from, args.to)));
    }
    let text = |value: &str| format!("'{}'", value.replace('\'', "''"));
    let sql = format!(
        "SELECT * FROM explain_track({}, {}, {}) ORDER BY event_time",
        text(&args.device),
        text(&args.from),
        text(&args.to)
    );
    let is_live = args.files.input.is_empty();
    let n_pings = match is_live {
        true => super::sql::over_wire(&args.url, &sql, None, args.format).await?,
        false => super::sql::over_files(&config, &args.files, &sql, None, args.format).await?,
    };
    if n_pings == 0 {
        let horizon = if is_live { "; a running Legwork explains pings of the last time.late_horizon" } else { "" };
        bail!(
            "no ping of device {:?} is known from {} to {}: legwork sql 'SELECT device_id, min(first_fix_time), max(last_fix_time) \
             FROM device_movement GROUP BY 1' shows devices and their times{horizon}",
            args.device,
            args.from,
            args.to
        );
    }
    Ok(())
}
