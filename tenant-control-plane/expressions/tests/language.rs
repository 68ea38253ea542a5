//! Expressions as admission uses them.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use expressions::types::Object;
use expressions::{Access, Authorizer, Inputs, Outcome, Program, Type};
use machinery::{RequestInfo, UserInfo};
use serde_json::{Value, json};

fn compile(source: &str) -> Result<Program, String> {
    Program::compile(source, &[("object", Type::Dyn)], &[Type::Dyn])
}

fn evaluate(source: &str, object: &Value) -> Result<Value, String> {
    let program = compile(source).unwrap_or_else(|e| panic!("{source}: {e}"));
    match program.evaluate(&Inputs::new().with("object", object))? {
        Outcome::Json(value) => Ok(value),
        Outcome::Other(name) => Ok(json!({"type": name})),
    }
}

#[test]
fn expressions_over_an_object() {
    let object = json!({
        "metadata": {"name": "web", "labels": {"app": "web", "a/b": "c"}},
        "spec": {"replicas": 3, "ratio": 0.5, "paused": false, "none": null,
            "containers": [{"name": "a", "image": "r/a:1"}, {"name": "b", "image": "r/b"}]},
    });
    for source in [
        "object.metadata.name == 'web'",
        "object.spec.replicas > 1 && object.spec.replicas % 2 == 1",
        "has(object.spec.replicas) && !has(object.spec.more)",
        "object.spec.containers.all(c, c.image.startsWith('r/'))",
        "object.spec.containers.exists(c, c.name == 'b')",
        "object.spec.containers.exists_one(c, c.name == 'b')",
        "object.spec.containers.map(c, c.name) == ['a', 'b']",
        "object.spec.containers.filter(c, c.image.contains(':')).size() == 1",
        "object.metadata.labels['a/b'] == 'c'",
        "object.metadata.labels.all(k, object.metadata.labels[k] != '')",
        "'app' in object.metadata.labels",
        "object.spec.none == null",
        "object.spec.ratio < 1.0",
        "object.?spec.?more.orValue(7) == 7",
        "(object.spec.paused ? 'a' : 'b') == 'b'",
        "'name is ' + object.metadata.name + string(object.spec.replicas) == 'name is web3'",
        "object.metadata.name.matches('^w.b$')",
        "'a-b'.split('-') == ['a', 'b'] && ['a', 'b'].join('-') == 'a-b'",
        "duration('1h') > duration('59m')",
        "timestamp('2024-01-01T00:00:00Z').getFullYear() == 2024",
        "'%s has %d'.format(['a', 2]) == 'a has 2'",
        "object.spec.more == 1 || true",
    ] {
        assert_eq!(evaluate(source, &object), Ok(json!(true)), "{source}");
    }
}

#[test]
fn the_libraries_of_kubernetes() {
    for source in [
        "[1, 2, 3].isSorted() && [1, 2, 3].sum() == 6 && [2, 1].min() == 1 && [2, 3].max() == 3",
        "['a', 'b', 'a'].indexOf('a') == 0 && ['a', 'b', 'a'].lastIndexOf('a') == 2",
        "'abc 123'.find('[0-9]+') == '123' && 'a1b2'.findAll('[0-9]') == ['1', '2']",
        "quantity('1Gi').isGreaterThan(quantity('1000M')) && quantity('50k').add(20).asInteger() == 50020",
        "isQuantity('1.5Mi') && !isQuantity('x') && quantity('-1').sign() == -1",
        "ip('10.0.0.1').family() == 4 && isIP('fe80::1') && !isIP('10.0.0.01')",
        "cidr('10.0.0.0/8').containsIP('10.1.2.3') && cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16')",
        "cidr('10.0.0.7/24').masked().prefixLength() == 24 && string(cidr('10.0.0.7/24').ip()) == '10.0.0.7'",
        "sets.contains([1, 2, 3], [2]) && sets.equivalent([1, 2], [2, 1, 1]) && !sets.intersects([1], [2])",
        "math.greatest(1, 3) == 3",
    ] {
        assert_eq!(evaluate(source, &Value::Null), Ok(json!(true)), "{source}");
    }
}

#[test]
fn what_cannot_be_right_is_refused_before_it_is_stored() {
    let cases = [
        ("... [] bad expression", "ERROR: <input>:1:"),
        ("nothing.here", "undeclared reference to 'nothing' (in container '')"),
        ("object.spec.frobnicate()", "undeclared reference to 'frobnicate'"),
        (
            "1 > '1'",
            "ERROR: <input>:1:3: found no matching overload for '_>_' applied to '(int, string)'",
        ),
        ("'a' + 1", "found no matching overload for '_+_' applied to '(string, int)'"),
        ("1 == 'a'", "found no matching overload for '_==_' applied to '(int, string)'"),
        ("!1", "found no matching overload for '!_' applied to '(int)'"),
        ("'a'.all(x, true)", "cannot be range of a comprehension"),
    ];
    for (source, text) in cases {
        let error = compile(source).unwrap_err();
        assert!(error.contains(text), "{source}: {error}");
    }
    let number = Program::compile("1 + 1", &[], &[Type::Bool]).unwrap_err();
    assert_eq!(number, "must evaluate to bool");
    Program::compile("object.x", &[("object", Type::Dyn)], &[Type::Bool]).unwrap();
}

#[test]
fn types_of_objects_are_checked_when_they_are_known() {
    let object = |name: &str, fields: &[(&str, Type)]| {
        let fields = fields.iter().map(|(n, t)| ((*n).to_owned(), t.clone())).collect();
        Type::Object(Arc::new(Object { name: name.to_owned(), fields }))
    };
    let spec = object("Object.spec", &[("replicas", Type::Int)]);
    let variables = [("object", object("Object", &[("spec", spec)]))];
    let faults = |source: &str| Program::type_faults(source, &variables);
    assert_eq!(faults("object.spec.replicas > 1"), "");
    assert!(
        faults("object.spec.replicas > '1'")
            .contains("found no matching overload for '_>_' applied to '(int, string)'")
    );
    assert!(faults("object.spec.maxRetries < 10").contains("undefined field 'maxRetries'"));
}

#[test]
fn what_has_no_value_says_why() {
    let object = json!({"spec": {"list": [1]}});
    let error = |source: &str| evaluate(source, &object).unwrap_err();
    assert_eq!(error("object.spec.more > 1"), "no such key: more");
    assert_eq!(error("object.spec.list > 1"), "no such overload");
    assert_eq!(error("1 / 0"), "division by zero");
    assert!(error("object.spec.list[3]").contains("index out of bounds"));
}

#[test]
fn no_expression_runs_for_ever() {
    let list: Vec<i64> = (0..2000).collect();
    let object = json!({"list": list});
    for source in [
        "object.list.all(a, object.list.all(b, a + b >= 0))",
        "object.list.map(a, object.list.map(b, a + b)).size() > 0",
        "object.list.exists(a, object.list.filter(b, a + b < 0).size() > 0)",
    ] {
        let error = evaluate(source, &object).unwrap_err();
        assert_eq!(error, EXCEEDED, "{source}");
    }
    assert_eq!(evaluate("object.list.map(a, a + 1).size()", &object), Ok(json!(2000)));
}

const EXCEEDED: &str = "operation cancelled: actual cost limit exceeded";

#[test]
fn no_expression_takes_much_memory() {
    let object = json!({"text": "x".repeat(200_000), "list": vec!["some text"; 20_000]});
    let doubled = format!("['xxxxxxxxxx']{}.size() > 0", ".map(a, a + a)".repeat(40));
    let copied = format!("['xxxxxxxxxx']{}.size() > 0", ".map(a, [a, a, a, a])".repeat(30));
    let many = vec!["object"; 1000].join(", ");
    for source in [
        doubled.as_str(),
        copied.as_str(),
        &format!("[{many}].size() > 0"),
        &format!("{{'a': [{many}]}}.size() > 0"),
        "object.list.map(a, object.text).size() > 0",
        "object.text.replace('x', object.text).size() > 0",
        "object.list.join(object.text).size() > 0",
        "(object.text + object.text).split('').size() > 0",
        "object.list.all(a, object.?text.hasValue())",
    ] {
        assert_eq!(evaluate(source, &object), Err(EXCEEDED.to_owned()), "{source:.60}");
    }
    assert_eq!(evaluate("(object.text + object.text).size()", &object), Ok(json!(400_000)));
}

#[test]
fn what_walks_over_large_values_is_charged_for_them() {
    let object = json!({"a": (0..2000).collect::<Vec<_>>(), "b": vec!["x".repeat(40); 5000],
        "text": "x".repeat(100_000)});
    for source in [
        "object.a.all(x, !('y' in object.b))",
        "object.a.all(x, object.b == object.b)",
        "object.a.all(x, !object.text.startsWith(object.text + 'y'))",
        "object.a.all(x, object.text.size() > 0)",
        "object.text.indexOf(object.text) == 0",
        "object.b.distinct().size() == 1",
        "object.a.all(x, object.text.matches('y{' + string(x) + '}') || true)",
    ] {
        assert_eq!(evaluate(source, &object).unwrap_err(), EXCEEDED, "{source}");
    }
    assert_eq!(
        evaluate("'y' in object.b || object.text.matches('^x+$')", &object),
        Ok(json!(true))
    );
}

#[test]
fn expressions_share_a_budget_that_no_operator_hides() {
    let object = json!({"list": (0..1000).collect::<Vec<_>>()});
    let program = compile("object.list.all(a, a >= 0)").unwrap();
    let mut inputs = Inputs::new().with("object", &object);
    inputs.set_budget(5000);
    let outcomes: Vec<_> = (0..6).map(|_| program.holds(&inputs)).collect();
    assert_eq!(outcomes[0], Ok(true));
    assert!(outcomes[5].as_ref().unwrap_err().contains("running out of cost budget"));
    let hidden = "object.list.all(a, object.list.all(b, object.list.all(c, true))) || true";
    assert_eq!(evaluate(hidden, &object).unwrap_err(), EXCEEDED);
}

#[test]
fn expressions_are_not_deep() {
    let chain = |first: &str, link: &str, count: usize| format!("{first}{}", link.repeat(count));
    for source in [
        chain("1", "+1", 4999),
        chain("object", ".a", 4999),
        chain("object", "[0]", 3000),
        chain("'a'", ".trim()", 1000),
    ] {
        let error = compile(&source).unwrap_err();
        assert!(error.contains("expression recursion limit exceeded: 128"), "{error}");
        assert!(Program::type_faults(&source, &[]).contains("recursion limit"));
    }
    let nested = |open: &str, count: usize, close: &str| {
        format!("{}true{}", open.repeat(count), close.repeat(count))
    };
    let loops = nested("[1].all(x, ", 28, ")");
    assert_eq!(evaluate(&loops, &Value::Null), Ok(json!(true)));
    let lists = nested("[", 40, "]").replace("true", "a");
    let deep = format!("[1]{}.size() > 0", format!(".map(a, {lists})").repeat(60));
    assert_eq!(evaluate(&deep, &Value::Null), Err(EXCEEDED.to_owned()));
    assert_eq!(evaluate(&chain("1", "+1", 100), &Value::Null), Ok(json!(101)));
    assert_eq!(evaluate(&chain("'a'", ".trim()", 120), &Value::Null), Ok(json!("a")));
    assert_eq!(evaluate(&chain("true", " && true", 1000), &Value::Null), Ok(json!(true)));
}

struct OnlyPods;

impl Access for OnlyPods {
    fn decide(&self, user: &UserInfo, request: &RequestInfo) -> (bool, String) {
        let allowed = request.resource == "pods" && request.verb == "get" && user.name != "nobody";
        (allowed, format!("{}/{}", request.namespace, request.name))
    }
}

#[test]
fn an_expression_may_ask_what_its_user_may() {
    let authorizer = Authorizer::new(Arc::new(OnlyPods), UserInfo::default());
    let request = RequestInfo {
        resource: "pods".into(),
        namespace: "ns".into(),
        name: "a".into(),
        ..RequestInfo::default()
    };
    let inputs = Inputs::new().with_authorizer(&authorizer, &request);
    let variables = [("authorizer", Type::AUTHORIZER)];
    for source in [
        "authorizer.group('').resource('pods').namespace('ns').check('get').allowed()",
        "!authorizer.group('').resource('pods').check('delete').allowed()",
        "authorizer.requestResource.check('get').reason() == 'ns/a'",
        "authorizer.serviceAccount('ns', 'x').group('').resource('pods').check('get').allowed()",
        "!authorizer.path('/healthz').check('get').allowed()",
    ] {
        let program = Program::compile(source, &variables, &[Type::Bool]).unwrap();
        assert_eq!(program.holds(&inputs), Ok(true), "{source}");
    }
    let wrong = Program::compile("authorizer.check('get')", &variables, &[Type::Dyn]).unwrap_err();
    assert!(wrong.contains("found no matching overload for 'check'"), "{wrong}");
}
