//! A writer's schema as the registry gave it.

use apache_avro::Schema;

/// Schema that messages were written with.
#[derive(Clone, Debug)]
pub struct WriterSchema {
    id: u32,
    schema: Schema,
    references: Vec<Schema>,
}

impl WriterSchema {
    /// Parses a schema and the texts of those that it refers to. *Errors:* what is not valid.
    pub fn parse(id: u32, text: &str, references: &[String]) -> Result<WriterSchema, String> {
        let parsed = if references.is_empty() {
            Schema::parse_str(text).map(|schema| (schema, Vec::new()))
        } else {
            Schema::parse_str_with_list(text, references)
        };
        let (schema, references) = parsed.map_err(|error| format!("schema id {id} is not valid Avro: {error}"))?;
        Ok(WriterSchema { id, schema, references })
    }

    /// Id in the registry.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The schema.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Schemas that it refers to.
    pub fn references(&self) -> &[Schema] {
        &self.references
    }
}
