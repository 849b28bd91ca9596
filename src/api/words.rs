//! Schemas in words and as HTML, for the page that people read.

use serde_json::Value;

use super::docs::name_in;
use super::page::escape;

/// A sentence of the document, with its code marked.
pub(super) fn prose(text: &str) -> String {
    let parts = text.split('`').enumerate();
    parts
        .map(|(index, part)| if index % 2 == 1 { format!("<code>{}</code>", escape(part)) } else { escape(part) })
        .collect()
}

/// What a value is.
pub(super) fn kind(schema: &Value) -> String {
    if let Some(reference) = schema["$ref"].as_str() {
        return format!("<a href=\"#type-{0}\">{0}</a>", escape(name_in(reference)));
    }
    if let Some(values) = values(schema) {
        let values: Vec<String> =
            values.iter().map(|value| format!("<code>{}</code>", escape(&plain(value)))).collect();
        return if values.len() == 1 { values.concat() } else { format!("one of {}", values.join(", ")) };
    }
    if let Some(choices) = schema["anyOf"].as_array().filter(|_| schema.get("type").is_none()) {
        return choices.iter().map(kind).collect::<Vec<_>>().join(" or ");
    }
    match &schema["type"] {
        Value::String(name) => of_type(name, schema),
        Value::Array(names) => {
            let names = names.iter().filter_map(Value::as_str);
            names.map(|name| of_type(name, schema)).collect::<Vec<_>>().join(" or ")
        }
        _ => "any value".into(),
    }
}

fn of_type(name: &str, schema: &Value) -> String {
    match name {
        "string" => {
            let mut words = vec![match schema["format"].as_str() {
                Some(format) => format!("text ({})", escape(format)),
                None => "text".into(),
            }];
            words.extend(range(&schema["minLength"], &schema["maxLength"]).map(|range| format!("{range} characters")));
            words.join(", ")
        }
        "integer" | "number" => {
            let mut words = vec![if name == "integer" { "whole number".into() } else { "number".to_owned() }];
            words.extend(range(&schema["minimum"], &schema["maximum"]));
            words.extend(schema.get("default").map(|default| format!("by default {}", plain(default))));
            words.join(", ")
        }
        "boolean" => "true or false".into(),
        "array" => match schema["prefixItems"].as_array() {
            Some(items) => format!("list of {}", items.iter().map(kind).collect::<Vec<_>>().join(" and ")),
            None => format!("list of {}", kind(&schema["items"])),
        },
        "object" => match schema.get("additionalProperties").filter(|values| values.is_object()) {
            Some(values) => format!("object of {}", kind(values)),
            None => "object".into(),
        },
        name => escape(name),
    }
}

fn range(min: &Value, max: &Value) -> Option<String> {
    match (min, max) {
        (Value::Null, Value::Null) => None,
        // Any count is at least that.
        (min, Value::Null) => (min.as_f64() != Some(0.0)).then(|| format!("at least {min}")),
        (Value::Null, max) => Some(format!("at most {max}")),
        (min, max) => Some(format!("{min} to {max}")),
    }
}

/// The values, where there are only a few.
fn values(schema: &Value) -> Option<Vec<&Value>> {
    if let Some(value) = schema.get("const") {
        return Some(vec![value]);
    }
    if let Some(values) = schema["enum"].as_array() {
        return Some(values.iter().collect());
    }
    schema["oneOf"].as_array()?.iter().map(|choice| choice.get("const")).collect()
}

fn plain(value: &Value) -> String {
    match value.as_str() {
        Some("") => "nothing".into(),
        Some(text) => text.to_owned(),
        None => value.to_string(),
    }
}

/// A type with its members, or its values.
pub(super) fn type_table(schema: &Value) -> String {
    let about = schema["description"].as_str().map(|text| format!("<p>{}</p>\n", prose(text))).unwrap_or_default();
    let is_required = |name: &str| schema["required"].as_array().is_some_and(|names| names.iter().any(|n| n == name));
    let rows: Vec<String> = if let Some(members) = schema["properties"].as_object() {
        members
            .iter()
            .map(|(name, member)| {
                let absent = if is_required(name) { "" } else { ", may be absent" };
                let about =
                    member["description"].as_str().map(|text| format!("<br>{}", prose(text))).unwrap_or_default();
                row(name, &format!("{}{absent}{about}", kind(member)))
            })
            .collect()
    } else {
        let choices = schema["oneOf"].as_array().into_iter().flatten();
        choices
            .filter_map(|choice| Some((choice.get("const")?, choice["description"].as_str().unwrap_or_default())))
            .map(|(value, about)| row(&plain(value), &prose(about)))
            .collect()
    };
    if rows.is_empty() {
        format!("{about}<p>{}</p>\n", kind(schema))
    } else {
        format!("{about}<table>\n{}</table>\n", rows.concat())
    }
}

fn row(name: &str, told: &str) -> String {
    format!("<tr><th scope=\"row\"><code>{}</code></th><td>{told}</td></tr>\n", escape(name))
}
