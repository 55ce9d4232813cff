//! The document that describes the API: it is served, it is the one in the repository, and it says what is true.

use std::{fs, path::Path};

use serde_json::Value;

use crate::fixture::{Fixture, answer};

/// Where it stands for those who read it without a daemon.
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json");

/// Set to have [`FILE`] written anew.
const WRITE: &str = "LB_WRITE_OPENAPI";

async fn served(fixture: &Fixture) -> Value {
    let (status, body) = fixture.send("GET", "/v1/openapi.json", "").await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).expect("JSON")
}

#[tokio::test]
async fn the_document_in_the_repository_is_the_one_that_is_served() {
    let served = served(&Fixture::start(answer)).await;
    let text = serde_json::to_string_pretty(&served).expect("JSON") + "\n";
    if std::env::var_os(WRITE).is_some() {
        fs::write(Path::new(FILE), &text).expect("docs/openapi.json");
    }
    let kept = fs::read_to_string(FILE).unwrap_or_default();
    assert!(kept == text, "docs/openapi.json is not what the daemon serves: run this test with {WRITE}=1");
}

/// Every reference leads somewhere, and every operation has its words, its tag and an answer.
#[tokio::test]
async fn the_document_is_whole() {
    let document = served(&Fixture::start(answer)).await;
    let mut references = Vec::new();
    collect(&document, &mut references);
    assert!(references.len() > 50, "{references:?}");
    for reference in references {
        let pointer = reference.strip_prefix('#').expect("within the document");
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
    let text = document.to_string();
    let link = text.find("[`").map(|at| &text[at.saturating_sub(60)..at + 40]);
    assert_eq!(link, None, "a link within the program's own documentation");
    let mut operations = 0;
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("a path item") {
            operations += 1;
            let at = format!("{method} {path}");
            assert!(operation["summary"].as_str().is_some_and(|summary| summary.ends_with('.')), "{at}");
            assert_eq!(operation["tags"].as_array().map(Vec::len), Some(1), "{at}");
            assert!(operation["responses"]["200"].is_object(), "{at}");
        }
    }
    assert_eq!(operations, 29);
}

/// Every operation reaches the daemon as it is described, and is answered by what is described.
#[tokio::test]
async fn every_operation_is_answered_as_described() {
    let fixture = Fixture::start(answer);
    let document = served(&fixture).await;
    for (path, item) in document["paths"].as_object().expect("paths") {
        let path = path.replace("{name}", "www").replace("{pool}", "web");
        for (method, operation) in item.as_object().expect("a path item") {
            let body = operation
                .pointer("/requestBody/content/application~1json/schema")
                .map_or_else(String::new, |schema| least(&document, schema).to_string());
            let (status, answered) = fixture.send(&method.to_uppercase(), &path, &body).await;
            let described = &operation["responses"][status.to_string()];
            let at = format!("{method} {path} {body}: {status} {answered}");
            // The daemon of this fixture has a reason not to be ready.
            let expected = if path == "/readyz" { 503 } else { 200 };
            assert!(described.is_object() && status == expected, "{at}");
            if let Some(schema) = described.pointer("/content/application~1json/schema") {
                fits(&document, schema, &serde_json::from_str(&answered).expect("JSON"), &at);
            }
        }
    }
}

fn collect<'a>(value: &'a Value, references: &mut Vec<&'a str>) {
    match value {
        Value::Object(map) => {
            references.extend(map.get("$ref").and_then(Value::as_str));
            map.values().for_each(|value| collect(value, references));
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, references)),
        _ => {}
    }
}

fn resolved<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    let reference = schema["$ref"].as_str().and_then(|reference| reference.strip_prefix('#'));
    reference.map_or(schema, |pointer| document.pointer(pointer).expect("a schema"))
}

/// The least value of a schema: only what it requires.
fn least(document: &Value, schema: &Value) -> Value {
    let schema = resolved(document, schema);
    if let Some(first) = schema["enum"].as_array().and_then(|values| values.first()) {
        return first.clone();
    }
    match schema["type"].as_str() {
        Some("array") => Value::Array(Vec::new()),
        Some("integer") => 1.into(),
        // An address is the narrowest of the texts that are asked for.
        Some("string") => "192.0.2.10".into(),
        Some("object") => {
            let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            required.map(|key| (key.to_owned(), least(document, &schema["properties"][key]))).collect()
        }
        other => panic!("a body of {other:?}"),
    }
}

/// Whether a value has the keys and the types that its schema says.
fn fits(document: &Value, schema: &Value, value: &Value, at: &str) {
    let schema = resolved(document, schema);
    if let Some(items) = schema.get("items") {
        let values = value.as_array().unwrap_or_else(|| panic!("no list {value} in {at}"));
        values.iter().for_each(|value| fits(document, items, value, at));
    } else if let (Some(properties), Some(map)) = (schema["properties"].as_object(), value.as_object()) {
        for key in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            assert!(map.contains_key(key), "{key} is missing in {at}");
        }
        for (key, value) in map {
            let property = properties.get(key).unwrap_or_else(|| panic!("{key} is not described: {at}"));
            fits(document, property, value, at);
        }
    } else if let Some(values) = schema["enum"].as_array() {
        assert!(values.contains(value), "{value} is none of {values:?} in {at}");
    }
}
