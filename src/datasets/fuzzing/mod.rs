//! What holds of every CSV file and of every statement, whoever makes them up.

mod csv_files;
mod statements;

pub use csv_files::csv;
pub use statements::sql;
