//! What the chart renders, and what the documentation shows, read as the Kubernetes API would, by its own types: a field
//! that the API does not know would be dropped there, and is found here because it does not come out again. `make chart`
//! and `make pages` write the objects first; the latter says where in `OBJECTS`.

use std::{env, fs};

use k8s_openapi::api::admissionregistration::v1::{
    MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding, ValidatingAdmissionPolicy,
    ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use k8s_openapi::serde::Serialize;
use k8s_openapi::serde::de::DeserializeOwned;
use serde_json::Value;

/// Where the chart's objects are, and how many there are at least.
const CHART: (&str, usize) = ("target/chart/objects.json", 20);

/// What went in and did not come out.
fn lost(before: &Value, after: Option<&Value>, path: &str, found: &mut Vec<String>) {
    match (before, after) {
        // Nothing is what these say, and they may go.
        (Value::Null, _) => {}
        (Value::Array(list), None) if list.is_empty() => {}
        (Value::Object(map), None) if map.is_empty() => {}
        (Value::Object(map), Some(Value::Object(after))) => {
            for (key, value) in map {
                lost(value, after.get(key), &format!("{path}.{key}"), found);
            }
        }
        (Value::Array(list), Some(Value::Array(after))) => {
            for (index, value) in list.iter().enumerate() {
                lost(value, after.get(index), &format!("{path}[{index}]"), found);
            }
        }
        (before, Some(after)) if before == after => {}
        // A quantity may be written as a number, and is a string from then on.
        (Value::Number(before), Some(Value::String(after))) if before.to_string() == *after => {}
        _ => found.push(path.to_owned()),
    }
}

fn check<T: Serialize + DeserializeOwned>(object: &Value) -> Vec<String> {
    match serde_json::from_value::<T>(object.clone()) {
        Ok(read) => {
            let after = serde_json::to_value(read).expect("it was JSON before");
            let mut found = Vec::new();
            lost(object, Some(&after), "", &mut found);
            found
        }
        Err(e) => vec![e.to_string()],
    }
}

/// The fields of an object that its type does not have; none for a kind that is not Kubernetes' own.
fn unknown(object: &Value) -> Option<Vec<String>> {
    let kind = object["kind"].as_str().unwrap_or_default();
    Some(match kind {
        "ConfigMap" => check::<ConfigMap>(object),
        "Deployment" => check::<Deployment>(object),
        "Job" => check::<Job>(object),
        "MutatingAdmissionPolicy" => check::<MutatingAdmissionPolicy>(object),
        "MutatingAdmissionPolicyBinding" => check::<MutatingAdmissionPolicyBinding>(object),
        "ValidatingAdmissionPolicy" => check::<ValidatingAdmissionPolicy>(object),
        "ValidatingAdmissionPolicyBinding" => check::<ValidatingAdmissionPolicyBinding>(object),
        "Pod" => check::<Pod>(object),
        "PodDisruptionBudget" => check::<PodDisruptionBudget>(object),
        "Role" => check::<Role>(object),
        "RoleBinding" => check::<RoleBinding>(object),
        "Secret" => check::<Secret>(object),
        "Service" => check::<Service>(object),
        "ServiceAccount" => check::<ServiceAccount>(object),
        "PodMonitor" | "PrometheusRule" => return None,
        _ => vec![format!("kind {kind:?} is not one that this test knows")],
    })
}

#[test]
fn every_field_is_one_that_the_api_knows() {
    let (file, least) = match env::var("OBJECTS") {
        Ok(file) => (file, 1),
        Err(_) => (CHART.0.to_owned(), CHART.1),
    };
    let text = fs::read_to_string(file).expect("run `make chart`, which renders them first");
    let objects: Vec<Value> = serde_json::from_str(&text).expect("JSON");
    let checked: Vec<_> = objects
        .iter()
        .filter_map(|object| Some((object, unknown(object)?)))
        .collect();
    assert!(checked.len() >= least, "only {} objects", checked.len());
    for (object, unknown) in checked {
        assert!(unknown.is_empty(), "{unknown:?} in {object:#}");
    }
}

#[test]
fn a_field_in_the_wrong_place_is_found() {
    let pod = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "spec": {"containers": [{"name": "app", "lifecycle": {"preStop": {"httpGet": {"port": 1}}, "prestop": 1}, "preStop": 1}]}
    });
    assert_eq!(
        unknown(&pod).unwrap(),
        [
            ".spec.containers[0].lifecycle.prestop",
            ".spec.containers[0].preStop"
        ]
    );
}
