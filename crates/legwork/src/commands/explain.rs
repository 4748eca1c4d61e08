//! `legwork explain`: a distance, ping by ping.

use anyhow::Result;

use crate::args::ExplainArgs;
use crate::exit::Failure;
use crate::topics;

pub(crate) async fn run(args: ExplainArgs) -> Result<()> {
    let config = super::quiet(&args.config.overrides())?;
    let [from_us, to_us] = [&args.from, &args.to].map(|time| topics::parse_time(time).map_err(Failure::Usage));
    if from_us? >= to_us? {
        anyhow::bail!(Failure::Usage(format!("--from {} is not before --to {}", args.from, args.to)));
    }
    let text = |value: &str| format!("'{}'", value.replace('\'', "''"));
    let sql = format!(
        "SELECT * FROM explain_track({}, {}, {}) ORDER BY event_time",
        text(&args.device),
        text(&args.from),
        text(&args.to)
    );
    if args.files.input.is_empty() {
        return super::sql::over_wire(&args.url, &sql, None, args.format).await;
    }
    super::sql::over_files(&config, &args.files, &sql, None, args.format).await
}
