//! `pg_catalog` and the functions that clients call on it, put into a session's context.

use std::fmt;
use std::sync::{Arc, OnceLock, Weak};

use async_trait::async_trait;
use datafusion::arrow::array::{Array, ArrayRef, StringArray};
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::catalog::CatalogProviderList;
use datafusion::common::ScalarValue;
use datafusion::datasource::TableType;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Signature, SimpleScalarUDF, Volatility, create_udf};
use datafusion::prelude::SessionContext;
use datafusion_postgres::datafusion_pg_catalog::pg_catalog::catalog_info::CatalogInfo;
use datafusion_postgres::datafusion_pg_catalog::pg_catalog::context::{PgCatalogContextProvider, Role};
use datafusion_postgres::datafusion_pg_catalog::pg_catalog::generate_series_arg_coercion::CoerceIntArgsToBigInt;
use datafusion_postgres::datafusion_pg_catalog::pg_catalog::oid_type_planner::PgOidTypePlanner;
use datafusion_postgres::datafusion_pg_catalog::pg_catalog::{
    self as pg, PgCatalogSchemaProvider, PgCatalogStaticTables,
};
use pgwire::error::PgWireResult;

use super::error::error;
use super::settings;

/// The fixed tables of `pg_catalog`, decoded once for all sessions.
#[derive(Default)]
pub(crate) struct Catalog(OnceLock<Arc<PgCatalogStaticTables>>);

impl fmt::Debug for Catalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Catalog").finish_non_exhaustive()
    }
}

impl Catalog {
    /// Adds the schema `pg_catalog` and its functions. `pid`: what `pg_backend_pid()` answers.
    pub(crate) fn install(&self, context: &SessionContext, pid: i32) -> PgWireResult<()> {
        self.try_install(context, pid).map_err(|cause| error("XX000", format!("the catalog cannot be set up: {cause}")))
    }

    fn try_install(&self, context: &SessionContext, pid: i32) -> Result<()> {
        let decode = || Arc::new(PgCatalogStaticTables::try_new().expect("the tables are part of the program"));
        let static_tables = self.0.get_or_init(decode).clone();
        let options = context.copied_config().options().catalog.clone();
        let catalogs = context.state().catalog_list().clone();
        let catalog = catalogs.catalog(&options.default_catalog).ok_or_else(|| {
            DataFusionError::Configuration(format!("no catalog is called {}", options.default_catalog))
        })?;
        let listed = Listed(Arc::downgrade(&catalogs));
        let schema = PgCatalogSchemaProvider::try_new(listed, static_tables.clone(), Roles)?;
        catalog.register_schema("pg_catalog", Arc::new(schema))?;
        for function in functions(&options.default_catalog, &options.default_schema, pid) {
            context.register_udf(function);
        }
        context.register_udtf("pg_get_keywords", static_tables.pg_get_keywords.clone());
        let state = context.state_ref();
        let existing = state.read().clone();
        *state.write() =
            SessionStateBuilder::new_from_existing(existing).with_type_planner(Arc::new(PgOidTypePlanner)).build();
        CoerceIntArgsToBigInt::widen(context);
        Ok(())
    }
}

/// The session's catalogs without owning them: `pg_catalog` is itself one of their schemas.
#[derive(Clone, Debug)]
struct Listed(Weak<dyn CatalogProviderList>);

impl Listed {
    fn catalogs(&self) -> Result<Arc<dyn CatalogProviderList>> {
        self.0.upgrade().ok_or_else(|| DataFusionError::Execution("the session has ended".to_owned()))
    }
}

#[async_trait]
impl CatalogInfo for Listed {
    async fn catalog_names(&self) -> Result<Vec<String>> {
        Ok(CatalogProviderList::catalog_names(self.catalogs()?.as_ref()))
    }

    async fn schema_names(&self, catalog_name: &str) -> Result<Option<Vec<String>>> {
        self.catalogs()?.schema_names(catalog_name).await
    }

    async fn table_names(&self, catalog_name: &str, schema_name: &str) -> Result<Option<Vec<String>>> {
        self.catalogs()?.table_names(catalog_name, schema_name).await
    }

    async fn table_schema(&self, catalog_name: &str, schema_name: &str, table_name: &str) -> Result<Option<SchemaRef>> {
        self.catalogs()?.table_schema(catalog_name, schema_name, table_name).await
    }

    async fn table_type(&self, catalog_name: &str, schema_name: &str, table_name: &str) -> Result<Option<TableType>> {
        CatalogInfo::table_type(&self.catalogs()?, catalog_name, schema_name, table_name).await
    }
}

/// Whoever connects may read, and nobody anything else.
#[derive(Clone, Debug)]
struct Roles;

/// The role of the addresses that are printed.
const ROLE: &str = "legwork";

#[async_trait]
impl PgCatalogContextProvider for Roles {
    async fn roles(&self) -> Vec<String> {
        vec![ROLE.to_owned()]
    }

    async fn role(&self, name: &str) -> Option<Role> {
        (name == ROLE).then(|| Role {
            name: name.to_owned(),
            is_superuser: false,
            can_login: true,
            can_create_db: false,
            can_create_role: false,
            can_create_user: false,
            can_replication: false,
            grants: Vec::new(),
            inherited_roles: Vec::new(),
        })
    }
}

fn functions(catalog: &str, schema: &str, pid: i32) -> Vec<ScalarUDF> {
    let mut functions: Vec<ScalarUDF> =
        ["has_table_privilege", "has_schema_privilege", "has_database_privilege", "has_any_column_privilege"]
            .into_iter()
            .map(pg::has_privilege_udf::create_has_privilege_udf)
            .collect();
    functions.extend([
        pg::create_current_database_udf(catalog),
        pg::create_current_schemas_udf(),
        pg::create_pg_get_userbyid_udf(),
        pg::create_pg_table_is_visible(),
        pg::format_type::create_format_type_udf(),
        pg::create_session_user_udf(),
        pg::pg_get_expr_udf::create_pg_get_expr_udf(),
        pg::create_pg_get_partkeydef_udf(),
        pg::create_pg_relation_is_publishable_udf(),
        pg::create_pg_get_statisticsobjdef_columns_udf(),
        pg::create_pg_encoding_to_char_udf(),
        pg::create_pg_relation_size_udf(),
        pg::create_pg_total_relation_size_udf(),
        pg::create_pg_stat_get_numscans(),
        pg::create_pg_get_constraintdef(),
        pg::create_pg_get_partition_ancestors_udf(),
        pg::quote_ident_udf::create_quote_ident_udf(),
        pg::quote_ident_udf::create_parse_ident_udf(),
        pg::array_bounds_udf::create_array_upper_udf(),
        pg::array_bounds_udf::create_array_lower_udf(),
        constant("version", ScalarValue::from(settings::VERSION)),
        constant("current_schema", ScalarValue::from(schema)),
        constant("pg_backend_pid", ScalarValue::from(pid)),
        constant("pg_my_temp_schema", ScalarValue::from(0_i32)),
        constant("pg_is_in_recovery", ScalarValue::from(false)),
        constant("pg_advisory_unlock_all", ScalarValue::from("")),
        constant("inet_server_port", ScalarValue::Int32(None)),
        constant("txid_current", ScalarValue::from(1_i64)),
        current_setting(),
        always("pg_function_is_visible", ScalarValue::from(true)),
        always("pg_type_is_visible", ScalarValue::from(true)),
        always("pg_operator_is_visible", ScalarValue::from(true)),
        always("pg_get_function_sqlbody", ScalarValue::Utf8(None)),
        always("pg_tablespace_location", ScalarValue::from("")),
        always("pg_table_size", ScalarValue::Int64(None)),
        nothing("pg_database_size", DataType::Utf8, DataType::Int64),
        nothing("pg_tablespace_size", DataType::Int32, DataType::Int64),
        nothing("pg_size_pretty", DataType::Int64, DataType::Utf8),
        always("pg_get_function_result", ScalarValue::Utf8(None)),
        always("pg_get_function_arguments", ScalarValue::Utf8(None)),
        untold("pg_get_indexdef"),
        untold("pg_get_viewdef"),
        untold("obj_description"),
        untold("col_description"),
        untold("shobj_description"),
    ]);
    functions
}

/// A function without arguments that always answers the same.
fn constant(name: &str, value: ScalarValue) -> ScalarUDF {
    let data_type = value.data_type();
    let answer = move |_: &[ColumnarValue]| Ok(ColumnarValue::Scalar(value.clone()));
    create_udf(name, vec![], data_type, Volatility::Stable, Arc::new(answer))
}

/// A function of one object that answers the same for all.
fn always(name: &str, value: ScalarValue) -> ScalarUDF {
    let data_type = value.data_type();
    let answer = move |_: &[ColumnarValue]| Ok(ColumnarValue::Scalar(value.clone()));
    create_udf(name, vec![DataType::Int32], data_type, Volatility::Stable, Arc::new(answer))
}

/// A function that tells no text, whatever it is asked.
fn untold(name: &str) -> ScalarUDF {
    let answer = |_: &[ColumnarValue]| Ok(ColumnarValue::Scalar(ScalarValue::Utf8(None)));
    let signature = Signature::variadic_any(Volatility::Stable);
    ScalarUDF::from(SimpleScalarUDF::new_with_signature(name, signature, DataType::Utf8, Arc::new(answer)))
}

/// A function of one value that knows nothing of it.
fn nothing(name: &str, argument: DataType, answer: DataType) -> ScalarUDF {
    let of_type = answer.clone();
    let function = move |_: &[ColumnarValue]| Ok(ColumnarValue::Scalar(ScalarValue::try_from(&of_type)?));
    create_udf(name, vec![argument], answer, Volatility::Stable, Arc::new(function))
}

/// `current_setting(name)` for the settings that never change.
fn current_setting() -> ScalarUDF {
    let answer = |arguments: &[ColumnarValue]| {
        let names = ColumnarValue::values_to_arrays(arguments)?.remove(0);
        let names = datafusion::arrow::compute::cast(&names, &DataType::Utf8)?;
        let names = datafusion::common::cast::as_string_array(&names)?;
        let values: StringArray = names.iter().map(|name| name.and_then(settings::fixed)).collect();
        let values: ArrayRef = Arc::new(values);
        if values.len() == 1 {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&values, 0)?));
        }
        Ok(ColumnarValue::Array(values))
    };
    create_udf("current_setting", vec![DataType::Utf8], DataType::Utf8, Volatility::Stable, Arc::new(answer))
}
