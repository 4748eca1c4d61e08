//! Generates `crates/legwork-types/src/generated.rs` from `schemas/*.avsc`: the kinds and the position of each column.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// The kinds in the order in which they are listed everywhere; one schema file each.
const KINDS: [&str; 22] = [
    "gps",
    "calls",
    "emails",
    "messages",
    "meetings",
    "check-ins",
    "tasks",
    "shifts",
    "leads",
    "deal-events",
    "orders",
    "costs",
    "reps",
    "device_assignments",
    "teams",
    "territories",
    "accounts",
    "products",
    "stages",
    "quotas",
    "calendars",
    "fx_rates",
];

/// Writes the generated file.
pub(crate) fn write() -> Result<()> {
    let path = crate::root().join("crates/legwork-types/src/generated.rs");
    fs::write(&path, generate()?).with_context(|| format!("writing {}", path.display()))
}

/// Fails when the generated file does not agree with the schemas.
pub(crate) fn check() -> Result<()> {
    let found = fs::read_to_string(crate::root().join("crates/legwork-types/src/generated.rs"))?;
    ensure!(found == generate()?, "generated.rs does not agree with schemas/: run `cargo xtask codegen`");
    Ok(())
}

fn generate() -> Result<String> {
    let on_disk = fs::read_dir(crate::root().join("schemas"))?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok()?.strip_suffix(".avsc").map(str::to_owned))
        .collect::<std::collections::BTreeSet<_>>();
    ensure!(
        on_disk == KINDS.iter().map(|&k| k.to_owned()).collect(),
        "schemas/ and the list of kinds differ: {on_disk:?}"
    );
    let schemas = KINDS.iter().map(|kind| read(kind)).collect::<Result<Vec<_>>>()?;
    let mut out = String::from(
        "//! Generated from `schemas/` by `cargo xtask codegen`. Do not edit.\n\nuse crate::kind::{KindInfo, Shape};\n\n",
    );
    enumeration(&mut out, &schemas)?;
    for (kind, schema) in KINDS.iter().zip(&schemas) {
        columns(&mut out, kind, schema)?;
    }
    Ok(out)
}

fn read(kind: &str) -> Result<Value> {
    let path = crate::root().join(format!("schemas/{kind}.avsc"));
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("parsing {}", path.display()))
}

fn text<'a>(schema: &'a Value, name: &str) -> Result<&'a str> {
    schema[name].as_str().with_context(|| format!("{} lacks {name}", schema["name"]))
}

fn enumeration(out: &mut String, schemas: &[Value]) -> Result<()> {
    out.push_str("/// A kind of event or of reference record.\n#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]\npub enum Kind {\n");
    for (kind, schema) in KINDS.iter().zip(schemas) {
        writeln!(out, "    /// `{}`: {}\n    {},", text(schema, "name")?, text(schema, "doc")?, camel(kind))?;
    }
    writeln!(
        out,
        "}}\n\nimpl Kind {{\n    /// Every kind, events first.\n    pub const ALL: [Kind; {}] = [",
        KINDS.len()
    )?;
    for kind in KINDS {
        writeln!(out, "        Kind::{},", camel(kind))?;
    }
    out.push_str("    ];\n\n    #[allow(clippy::too_many_lines, reason = \"a table\")]\n    pub(crate) const fn info(self) -> &'static KindInfo {\n        match self {\n");
    for (kind, schema) in KINDS.iter().zip(schemas) {
        let shape = match text(schema, "shape")? {
            "fact" => "Fact",
            "entity" => "Entity",
            "patch" => "Patch",
            "reference" => "Reference",
            other => anyhow::bail!("{kind}: unknown shape {other}"),
        };
        let table = match *kind {
            "gps" => "gps_pings".to_owned(),
            "leads" => "lead_events".to_owned(),
            "orders" => "order_events".to_owned(),
            other => other.replace('-', "_"),
        };
        writeln!(out, "            Kind::{} => &KindInfo {{", camel(kind))?;
        writeln!(
            out,
            "                name: \"{kind}\",\n                table: \"{table}\",\n                topic: \"{}\",",
            text(schema, "topic")?
        )?;
        writeln!(
            out,
            "                key: \"{}\",\n                record: \"{}\",\n                shape: Shape::{shape},",
            text(schema, "key")?,
            text(schema, "name")?
        )?;
        writeln!(out, "                avro: include_str!(\"../../../schemas/{kind}.avsc\"),\n            }},")?;
    }
    out.push_str("        }\n    }\n}\n");
    Ok(())
}

fn columns(out: &mut String, kind: &str, schema: &Value) -> Result<()> {
    writeln!(
        out,
        "\n/// Positions of the columns of `{}`.\npub mod {} {{",
        text(schema, "name")?,
        kind.replace('-', "_")
    )?;
    for (idx, field) in schema["fields"].as_array().context("fields")?.iter().enumerate() {
        writeln!(
            out,
            "    /// {}\n    pub const {}: usize = {idx};",
            text(field, "doc")?,
            text(field, "name")?.to_uppercase()
        )?;
    }
    out.push_str("}\n");
    Ok(())
}

fn camel(kind: &str) -> String {
    kind.split(['-', '_']).map(|word| word[..1].to_uppercase() + &word[1..]).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn generated_code_agrees_with_the_schemas() {
        super::check().expect("run `cargo xtask codegen`");
    }
}
