//! The tables that questions are about.

use serde_json::{Value, json};

use super::Api;
use super::call::{Call, Reply};
use super::parameter::Parameter;
use super::problem::Problem;
use super::routes::{Answer, Document, Example, Lane, Route};
use crate::datasets::{CatalogueEntry, CataloguePage, MAX_ROWS, TableRows, TableSummary};

/// How many tables a catalogue page may have.
const PAGE_SIZE_MAX: u64 = 10_000;
/// How many rows of a table are shown when the request does not say.
const ROWS_DEFAULT: u64 = 100;
/// How many bytes of a table are shown at most.
const TABLE_BYTES_MAX: usize = 4 * 1024 * 1024;

pub(super) const ROUTES: &[Route] = &[
    Route {
        method: "GET",
        path: "/catalog",
        handler: catalog,
        lane: Lane::Data,
        token: true,
        limited: true,
        document: Document {
            name: "listCatalogue",
            summary: "The tables with everything that is said about them",
            parameters: &[PAGE.told, PAGE_SIZE.told, WORDS.told],
            request: None,
            answers: &[Answer::json::<CataloguePage>(200, "a page of the catalogue")],
        },
    },
    Route {
        method: "GET",
        path: "/data-tables",
        handler: tables,
        lane: Lane::Data,
        token: true,
        limited: true,
        document: Document {
            name: "listTables",
            summary: "The tables in a few words",
            parameters: &[WORDS.told],
            request: None,
            answers: &[Answer::json::<Tables>(200, "the tables")],
        },
    },
    Route {
        method: "GET",
        path: "/data-table",
        handler: table,
        lane: Lane::Data,
        token: true,
        limited: true,
        document: Document {
            name: "showTable",
            summary: "The first rows of a table; empty if there is no such table",
            parameters: &[TABLE.told, LIMIT.told],
            request: None,
            answers: &[Answer::json::<TableRows>(200, "its rows")],
        },
    },
];

const PAGE: Parameter<u64> = Parameter::number("page", 1, 1..=u32::MAX as u64, "which page");
const PAGE_SIZE: Parameter<u64> = Parameter::number("page_size", 10, 1..=PAGE_SIZE_MAX, "tables a page");
const WORDS: Parameter<String> = Parameter::words("q", "words that have to occur").such_as("penguins");
const TABLE: Parameter<String> = Parameter::words("table", "its name, the selection_code").such_as("penguins");
const LIMIT: Parameter<u64> = Parameter::number("limit", ROWS_DEFAULT, 1..=MAX_ROWS, "rows");

impl Example for CataloguePage {
    fn example() -> Value {
        let extended_description = "Penguins of the Palmer Archipelago. Columns: species, island, body_mass_g.".into();
        let results = vec![CatalogueEntry { selection_code: "penguins".into(), extended_description }];
        json!(CataloguePage { results, total: 1, page: 1, page_size: 10 })
    }
}

impl Example for Tables {
    fn example() -> Value {
        let short_description = "Penguins of the Palmer Archipelago".into();
        let table = TableSummary { selection_code: "penguins".into(), short_description, row_count: 344 };
        json!(Tables { tables: vec![table] })
    }
}

impl Example for TableRows {
    fn example() -> Value {
        let columns = ["species", "island", "body_mass_g"].map(str::to_owned).into();
        json!(TableRows {
            columns,
            rows: vec![vec!["Adelie".into(), "Torgersen".into(), 3750.into()]],
            truncated: true
        })
    }
}

fn catalog(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let mut parameters = call.parameters()?;
    let page = parameters.number(&PAGE);
    let page_size = parameters.number(&PAGE_SIZE);
    let words = parameters.get(&WORDS).unwrap_or_default();
    parameters.end()?;
    Ok(Reply::json(&api.datasets.catalogue(page as usize, page_size as usize, &words)?))
}

#[derive(serde::Serialize, schemars::JsonSchema)]
struct Tables {
    tables: Vec<TableSummary>,
}

fn tables(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let mut parameters = call.parameters()?;
    let words = parameters.get(&WORDS).unwrap_or_default();
    parameters.end()?;
    let tables = api.datasets.tables(&words)?;
    Ok(Reply::json(&Tables { tables }))
}

fn table(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let mut parameters = call.parameters()?;
    let limit = parameters.number(&LIMIT);
    let name = parameters.get(&TABLE).unwrap_or_default();
    parameters.end()?;
    Ok(Reply::json(&api.datasets.rows(&name, limit, TABLE_BYTES_MAX)?))
}
