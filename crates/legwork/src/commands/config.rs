//! `legwork config`: what is in force, and what there is.

use std::io::Write;

use anyhow::Result;

use crate::args::ConfigCommand;
use crate::config;

pub(crate) fn run(command: ConfigCommand) -> Result<()> {
    let text = match command {
        ConfigCommand::Print(args) => {
            let config = config::load(&args.overrides())?;
            config.without_effect().iter().for_each(|notice| eprintln!("warning: {notice}"));
            config::masked(&config)?
        }
        ConfigCommand::Schema => serde_json::to_string_pretty(&config::schema())? + "\n",
    };
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}
