//! Holds the arrows between crates: which crate may reach which, directly or not.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// (crate, what it must not reach, not even through others).
const FORBIDDEN: [(&str, &[&str]); 8] = [
    ("legwork-types", &["tokio", "rdkafka", "datafusion", "legwork-codec", "legwork-operators"]),
    (
        "legwork-operators",
        &["tokio", "rdkafka", "datafusion", "slatedb", "legwork-codec", "legwork-state", "legwork-runtime"],
    ),
    ("legwork-state", &["rdkafka", "datafusion", "legwork-operators", "legwork-codec", "legwork-runtime"]),
    ("legwork-lake", &["rdkafka", "slatedb", "legwork-operators", "legwork-runtime", "legwork-query"]),
    ("legwork-codec", &["rdkafka", "datafusion", "legwork-operators", "legwork-runtime"]),
    ("legwork-runtime", &["rdkafka", "datafusion", "deltalake", "legwork-query", "legwork-lake", "legwork-kafka"]),
    ("legwork-kafka", &["datafusion", "legwork-query", "legwork-server"]),
    (
        "legwork-query",
        &["rdkafka", "deltalake", "slatedb", "legwork-kafka", "legwork-lake", "legwork-runtime", "legwork-server"],
    ),
];

/// Checks the arrows; fails too on a name that is no crate of the graph.
pub(crate) fn check() -> Result<()> {
    // Only this machine's platform: the crates of others may not be downloaded.
    let version = run(Command::new("rustc").arg("-vV"))?;
    let version = String::from_utf8_lossy(&version);
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc -vV names no host")?;
    let metadata = ["metadata", "--format-version=1", "--locked", "--offline", "--filter-platform", host];
    let output = run(Command::new(env!("CARGO")).args(metadata).current_dir(crate::root()))?;
    let metadata: Value = serde_json::from_slice(&output)?;
    let graph = Graph::from_metadata(&metadata)?;
    let mut broken = Vec::new();
    for (from, forbidden) in FORBIDDEN {
        let reached = graph.reachable(from)?;
        for name in forbidden {
            ensure!(graph.arrows.contains_key(*name), "the dependency check names {name}, which is no crate here");
            if reached.contains(*name) {
                broken.push(format!("{from} reaches {name}"));
            }
        }
    }
    if !broken.is_empty() {
        bail!("crate boundaries are crossed:\n  {}", broken.join("\n  "));
    }
    Ok(())
}

fn run(command: &mut Command) -> Result<Vec<u8>> {
    let output = command.output()?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}

struct Graph {
    arrows: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    fn from_metadata(metadata: &Value) -> Result<Graph> {
        let names: BTreeMap<&str, &str> = metadata["packages"]
            .as_array()
            .context("packages")?
            .iter()
            .filter_map(|p| Some((p["id"].as_str()?, p["name"].as_str()?)))
            .collect();
        let mut arrows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for node in metadata["resolve"]["nodes"].as_array().context("resolve.nodes")? {
            let from = names[node["id"].as_str().context("id")?];
            let to = arrows.entry(from.to_owned()).or_default();
            for dep in node["deps"].as_array().context("deps")? {
                let normal = dep["dep_kinds"].as_array().is_some_and(|kinds| kinds.iter().any(|k| k["kind"].is_null()));
                if normal {
                    to.insert(names[dep["pkg"].as_str().context("pkg")?].to_owned());
                }
            }
        }
        Ok(Graph { arrows })
    }

    fn reachable(&self, from: &str) -> Result<BTreeSet<&str>> {
        let mut seen = BTreeSet::new();
        let mut open: Vec<&str> = vec![
            self.arrows
                .get_key_value(from)
                .with_context(|| format!("the dependency check names {from}, which is no crate here"))?
                .0,
        ];
        while let Some(name) = open.pop() {
            for next in &self.arrows[name] {
                if seen.insert(next.as_str()) {
                    open.push(next);
                }
            }
        }
        Ok(seen)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_arrows_point_one_way() {
        super::check().expect("crate boundaries");
    }
}
