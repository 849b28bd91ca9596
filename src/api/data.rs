//! The tables that questions are about.

use super::Api;
use super::call::{Call, Reply};
use super::problem::Problem;
use super::routes::{Document, Lane, Parameter, Route, schema};
use crate::datasets::{CataloguePage, MAX_ROWS, TableRows, TableSummary};

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
            summary: "The tables with everything that is said about them",
            parameters: &[
                Parameter::query("page", "from 1 (1)"),
                Parameter::query("page_size", "1 to 10000 (10)"),
                Parameter::query("q", "words that have to occur"),
            ],
            request: None,
            answers: &[(200, "a page of the catalogue", Some(schema::<CataloguePage>))],
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
            summary: "The tables in a few words",
            parameters: &[Parameter::query("q", "words that have to occur")],
            request: None,
            answers: &[(200, "the tables", Some(schema::<Tables>))],
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
            summary: "The first rows of a table; empty if there is no such table",
            parameters: &[
                Parameter::query("table", "its name, the selection_code"),
                Parameter::query("limit", "rows, 1 to 10000 (100)"),
            ],
            request: None,
            answers: &[(200, "its rows", Some(schema::<TableRows>))],
        },
    },
];

fn catalog(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let mut parameters = call.parameters()?;
    let page = parameters.number("page", 1, 1, u64::from(u32::MAX));
    let page_size = parameters.number("page_size", 10, 1, PAGE_SIZE_MAX);
    let words = parameters.text("q").unwrap_or_default().to_owned();
    parameters.end()?;
    Ok(Reply::json(&api.datasets.catalogue(page as usize, page_size as usize, &words)?))
}

#[derive(serde::Serialize, schemars::JsonSchema)]
struct Tables {
    tables: Vec<TableSummary>,
}

fn tables(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let parameters = call.parameters()?;
    let tables = api.datasets.tables(parameters.text("q").unwrap_or_default())?;
    Ok(Reply::json(&Tables { tables }))
}

fn table(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let mut parameters = call.parameters()?;
    let limit = parameters.number("limit", ROWS_DEFAULT, 1, MAX_ROWS);
    let name = parameters.text("table").unwrap_or_default().to_owned();
    parameters.end()?;
    Ok(Reply::json(&api.datasets.rows(&name, limit, TABLE_BYTES_MAX)?))
}
