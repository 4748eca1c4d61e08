//! The catalog: live tables under their names, views over them.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, SchemaProvider, TableProvider};
use datafusion::catalog::{CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList};
use datafusion::common::Result;
use legwork_types::{Kind, LiveTables, Table};
use parking_lot::RwLock;

use crate::TableInfo;
use crate::lake::{Contents, History, LakeTable};
use crate::table::LiveTable;

/// Name of the catalog.
pub(crate) const CATALOG: &str = "legwork";
/// Schema of tables and views.
pub(crate) const PUBLIC: &str = "public";
/// Schema of what the lanes hold where a view of the same name stands in `public`.
pub(crate) const LANES: &str = "lanes";

/// Tables that a view of the same name covers.
const COVERED: &[Table] = &[Table::Deals, Table::RepPositions];

/// A schema that only this crate fills, and only while the engine is made.
#[derive(Debug, Default)]
pub(crate) struct FixedSchema {
    tables: RwLock<BTreeMap<String, Arc<dyn TableProvider>>>,
}

impl FixedSchema {
    pub(crate) fn add(&self, name: &str, table: Arc<dyn TableProvider>) {
        self.tables.write().insert(name.to_owned(), table);
    }
}

#[async_trait]
impl SchemaProvider for FixedSchema {
    fn table_names(&self) -> Vec<String> {
        self.tables.read().keys().cloned().collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        Ok(self.tables.read().get(name).cloned())
    }

    fn table_exist(&self, name: &str) -> bool {
        self.tables.read().contains_key(name)
    }
}

/// The schemas that all sessions share.
#[derive(Clone, Debug, Default)]
pub(crate) struct Schemas {
    pub(crate) public: Arc<FixedSchema>,
    pub(crate) lanes: Arc<FixedSchema>,
}

impl Schemas {
    /// A catalog list of a session's own, so that what a protocol adds to it (such as `pg_catalog`) stays in the session.
    pub(crate) fn catalog_list(&self) -> Result<Arc<dyn CatalogProviderList>> {
        let catalog = MemoryCatalogProvider::new();
        catalog.register_schema(PUBLIC, self.public.clone())?;
        catalog.register_schema(LANES, self.lanes.clone())?;
        let list = MemoryCatalogProviderList::new();
        list.register_catalog(CATALOG.to_owned(), Arc::new(catalog));
        Ok(Arc::new(list))
    }
}

/// Whether what the lanes hold of this table lies under `lanes`, with a view in its place.
pub(crate) fn is_covered(table: Table) -> bool {
    table.def().is_partial || COVERED.contains(&table)
}

/// A table that the lake keeps: its name, what its rows are, the column whose UTC day they belong to.
pub(crate) type LakeDef = (&'static str, Contents, &'static str);

/// Every table that the lake keeps.
pub(crate) fn lake_tables() -> impl Iterator<Item = LakeDef> {
    let tables =
        Table::ALL.iter().filter_map(|&table| Some((table.name(), Contents::Versions(table), table.def().day?)));
    let events = Kind::ALL.into_iter().filter(|kind| !kind.is_reference());
    tables.chain(events.map(|kind| (kind.table(), Contents::Events, "event_time")))
}

/// Adds every table of the lanes and of the kinds; returns what `public` got. With a `history`, those that the lake keeps are read from
/// both.
pub(crate) fn add_tables(
    schemas: &Schemas,
    live: &Arc<dyn LiveTables>,
    history: Option<&Arc<dyn History>>,
) -> Vec<TableInfo> {
    let mut infos = Vec::new();
    let mut add = |name: &'static str, doc: String, schema: SchemaRef, key: Vec<String>, is_covered: bool| {
        let in_lake = history.zip(lake_tables().find(|def| def.0 == name));
        let table: Arc<dyn TableProvider> = match in_lake {
            Some((history, def)) => Arc::new(LakeTable::new(def, schema.clone(), live.clone(), history.clone())),
            None => Arc::new(LiveTable::new(name, schema.clone(), live.clone())),
        };
        if is_covered {
            schemas.lanes.add(name, table);
        } else {
            schemas.public.add(name, table);
            infos.push(TableInfo { name: name.to_owned(), doc, is_view: false, schema, key });
        }
    };
    for &table in Table::ALL {
        let def = table.def();
        let key = def.key.iter().map(|&column| column.to_owned()).collect();
        add(def.name, def.doc.trim().to_owned(), table.schema(), key, is_covered(table));
    }
    for kind in Kind::ALL {
        add(kind.table(), doc_of(kind), kind_schema(kind), kind_key(kind), false);
    }
    infos
}

/// Columns of a kind's table: those of its events and where each came from; reference records as they are.
pub(crate) fn kind_schema(kind: Kind) -> SchemaRef {
    if kind.is_reference() {
        return kind.schema();
    }
    let mut fields: Vec<Arc<Field>> = kind.schema().fields().iter().cloned().collect();
    let arrival = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    fields.push(Arc::new(Field::new("topic", DataType::Utf8, false)));
    fields.push(Arc::new(Field::new("partition", DataType::Int64, false)));
    fields.push(Arc::new(Field::new("offset", DataType::Int64, false)));
    fields.push(Arc::new(Field::new("arrival_time", arrival, false)));
    Arc::new(Schema::new(fields))
}

fn kind_key(kind: Kind) -> Vec<String> {
    let columns: &[&str] = match kind {
        Kind::Stages => &["pipeline_id", "stage"],
        Kind::FxRates => &["currency", "as_of"],
        Kind::Quotas => &["rep_id", "metric", "period", "valid_from"],
        Kind::Reps => &["rep_id", "valid_from"],
        Kind::DeviceAssignments => &["device_id", "rep_id", "valid_from"],
        kind if kind.is_reference() => &[kind.key()],
        _ => &["topic", "partition", "offset"],
    };
    columns.iter().map(|&column| column.to_owned()).collect()
}

fn doc_of(kind: Kind) -> String {
    let avro: serde_json::Value = serde_json::from_str(kind.avro()).unwrap_or_default();
    avro["doc"].as_str().unwrap_or_default().to_owned()
}
