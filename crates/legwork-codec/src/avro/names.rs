//! Named types of a writer's schema, so that references can be followed.

use std::collections::HashMap;

use apache_avro::Schema;
use apache_avro::schema::{InnerDecimalSchema, Name, UuidSchema};

/// Every record, enum and fixed of a schema and of the schemas that it refers to, by full name.
#[derive(Debug, Default)]
pub(crate) struct Names<'a> {
    by_name: HashMap<String, &'a Schema>,
}

impl<'a> Names<'a> {
    pub(crate) fn collect(schema: &'a Schema, references: &'a [Schema]) -> Names<'a> {
        let mut names = Names::default();
        for referenced in references {
            names.add(referenced, None);
        }
        names.add(schema, None);
        names
    }

    /// What a name stands for inside a namespace.
    pub(crate) fn get(&self, name: &Name, namespace: Option<&str>) -> Option<&'a Schema> {
        self.by_name.get(&name.fullname(namespace)).copied()
    }

    fn add(&mut self, schema: &'a Schema, namespace: Option<&str>) {
        match schema {
            Schema::Record(record) => {
                self.by_name.insert(record.name.fullname(namespace), schema);
                let inner = record.name.namespace().or(namespace);
                for field in &record.fields {
                    self.add(&field.schema, inner);
                }
            }
            Schema::Enum(symbols) => {
                self.by_name.insert(symbols.name.fullname(namespace), schema);
            }
            Schema::Fixed(fixed) | Schema::Duration(fixed) | Schema::Uuid(UuidSchema::Fixed(fixed)) => {
                self.by_name.insert(fixed.name.fullname(namespace), schema);
            }
            Schema::Decimal(decimal) => {
                if let InnerDecimalSchema::Fixed(fixed) = &decimal.inner {
                    self.by_name.insert(fixed.name.fullname(namespace), schema);
                }
            }
            Schema::Array(array) => self.add(&array.items, namespace),
            Schema::Map(map) => self.add(&map.types, namespace),
            Schema::Union(union) => union.variants().iter().for_each(|branch| self.add(branch, namespace)),
            _ => {}
        }
    }
}
