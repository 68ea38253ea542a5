//! Quantities, such as `100Mi`: `quantity`, `isQuantity` and arithmetic.

use std::cmp::Ordering;

use cel::common::types::{INT_TYPE, STRING_TYPE, Type};
use cel::objects::Opaque;
use cel::{DeclarationError, Env, ExecutionError, Value};
use machinery::Quantity;

use super::{Args, Returned, failed, free, member, mismatch, opaque, own, returned, text, values};

/// Name of the type.
const NAME: &str = "kubernetes.Quantity";

/// A quantity as a value.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Amount(Quantity);

impl Opaque for Amount {
    fn runtime_type_name(&self) -> &str {
        NAME
    }
}

pub(super) fn extension(environment: &mut Env) -> Result<(), DeclarationError> {
    let amount = || Type::new_opaque_type(NAME);
    free(environment, "quantity", vec![STRING_TYPE], quantity)?;
    free(environment, "isQuantity", vec![STRING_TYPE], is_quantity)?;
    member(environment, "isInteger", amount(), vec![], is_integer)?;
    member(environment, "asInteger", amount(), vec![], as_integer)?;
    member(environment, "asApproximateFloat", amount(), vec![], as_float)?;
    member(environment, "sign", amount(), vec![], sign)?;
    member(environment, "compareTo", amount(), vec![amount()], compare_to)?;
    member(environment, "isLessThan", amount(), vec![amount()], is_less)?;
    member(environment, "isGreaterThan", amount(), vec![amount()], is_greater)?;
    member(environment, "add", amount(), vec![amount()], add)?;
    member(environment, "add", amount(), vec![INT_TYPE], add)?;
    member(environment, "sub", amount(), vec![amount()], sub)?;
    member(environment, "sub", amount(), vec![INT_TYPE], sub)
}

fn quantity<'b, 'v>(args: Args<'b, 'v>) -> Returned<'b, 'v> {
    let [given] = values(args)?;
    let parsed = text(&given)?.parse().map_err(|e| failed("quantity", e))?;
    opaque(Amount(parsed))
}

fn is_quantity<'b, 'v>(args: Args<'b, 'v>) -> Returned<'b, 'v> {
    let [given] = values(args)?;
    returned(text(&given)?.parse::<Quantity>().is_ok())
}

fn this(args: Args<'_, '_>) -> Result<Quantity, ExecutionError> {
    let [this] = values(args)?;
    Ok(own::<Amount>(&this)?.0)
}

fn is_integer<'b, 'v>(args: Args<'b, 'v>) -> Returned<'b, 'v> {
    returned(this(args)?.is_integer())
}

fn as_integer<'b, 'v>(args: Args<'b, 'v>) -> Returned<'b, 'v> {
    let this = this(args)?;
    match this.is_integer() {
        true => returned(this.value()),
        false => Err(failed("asInteger", "cannot convert value to integer")),
    }
}

fn as_float<'b, 'v>(args: Args<'b, 'v>) -> Returned<'b, 'v> {
    returned(this(args)?.milli_value() as f64 / 1000.0)
}

fn sign<'b, 'v>(args: Args<'b, 'v>) -> Returned<'b, 'v> {
    let this = this(args)?;
    returned(if this.is_zero() {
        0_i64
    } else if this.is_negative() {
        -1
    } else {
        1
    })
}

/// The quantity and its argument, which may be a whole number.
fn pair(args: Args<'_, '_>) -> Result<(Quantity, Quantity), ExecutionError> {
    let [this, other] = values(args)?;
    let other = match &other {
        Value::Int(units) => Quantity::from_units(*units),
        Value::Opaque(_) => own::<Amount>(&other)?.0,
        other => return Err(mismatch(other, NAME)),
    };
    Ok((own::<Amount>(&this)?.0, other))
}

fn compare_to<'b, 'v>(args: Args<'b, 'v>) -> Returned<'b, 'v> {
    let (a, b) = pair(args)?;
    returned(match a.cmp(&b) {
        Ordering::Less => -1_i64,
        Ordering::Equal => 0,
        Ordering::Greater => 1,
    })
}

fn is_less<'b, 'v>(args: Args<'b, 'v>) -> Returned<'b, 'v> {
    let (a, b) = pair(args)?;
    returned(a < b)
}

fn is_greater<'b, 'v>(args: Args<'b, 'v>) -> Returned<'b, 'v> {
    let (a, b) = pair(args)?;
    returned(a > b)
}

fn add<'b, 'v>(args: Args<'b, 'v>) -> Returned<'b, 'v> {
    let (a, b) = pair(args)?;
    opaque(Amount(a + b))
}

fn sub<'b, 'v>(args: Args<'b, 'v>) -> Returned<'b, 'v> {
    let (a, b) = pair(args)?;
    opaque(Amount(a - b))
}
