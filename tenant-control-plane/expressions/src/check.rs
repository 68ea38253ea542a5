//! Checks an expression before it is evaluated: names that nobody declares, operators and functions
//! on types that they do not take.
//!
//! A value whose type is not known ([`Type::Dyn`]) passes everywhere; what it really is shows when
//! the expression is evaluated.

use cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, SelectExpr, operators,
};

use crate::library::{authz, signatures};
use crate::types::Type;

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Fault {
    /// Node of the expression.
    pub(crate) at: u64,
    /// What, in the words of CEL's compilers.
    pub(crate) text: String,
}

/// The type of an expression over variables of known types, and its faults.
pub(crate) fn check(expression: &IdedExpr, variables: &[(&str, Type)]) -> (Type, Vec<Fault>) {
    let scope = variables.iter().map(|(name, ty)| ((*name).to_owned(), ty.clone())).collect();
    let mut checker = Checker { scope, faults: Vec::new() };
    let ty = checker.infer(expression);
    (ty, checker.faults)
}

struct Checker {
    /// Variables, innermost last.
    scope: Vec<(String, Type)>,
    faults: Vec<Fault>,
}

impl Checker {
    fn fault(&mut self, at: u64, text: String) -> Type {
        let fault = Fault { at, text };
        if !self.faults.contains(&fault) {
            self.faults.push(fault);
        }
        Type::Dyn
    }

    fn infer(&mut self, expression: &IdedExpr) -> Type {
        match &expression.expr {
            Expr::Literal(literal) => literal_type(literal),
            Expr::Ident(name) => self.name(expression.id, name),
            Expr::Select(select) => self.select(expression.id, select),
            Expr::Call(call) => self.call(expression.id, call),
            Expr::List(list) => {
                let items: Vec<_> = list.elements.iter().map(|e| self.infer(e)).collect();
                Type::List(common(&items).into())
            }
            Expr::Map(map) => {
                let values: Vec<_> = map.entries.iter().map(|e| self.entry(&e.expr)).collect();
                Type::Map(common(&values).into())
            }
            Expr::Struct(object) => {
                object.entries.iter().for_each(|e| {
                    self.entry(&e.expr);
                });
                let text =
                    format!("undeclared reference to '{}' (in container '')", object.type_name);
                self.fault(expression.id, text)
            }
            Expr::Comprehension(comprehension) => self.comprehension(comprehension),
            Expr::Unspecified => Type::Dyn,
        }
    }

    fn entry(&mut self, entry: &EntryExpr) -> Type {
        match entry {
            EntryExpr::StructField(field) => self.infer(&field.value),
            EntryExpr::MapEntry(entry) => {
                self.infer(&entry.key);
                self.infer(&entry.value)
            }
        }
    }

    fn name(&mut self, at: u64, name: &str) -> Type {
        if let Some((_, ty)) = self.scope.iter().rev().find(|(known, _)| known == name) {
            return ty.clone();
        }
        if signatures::is_type_name(name) {
            return Type::Dyn;
        }
        self.fault(at, format!("undeclared reference to '{name}' (in container '')"))
    }

    fn select(&mut self, at: u64, select: &SelectExpr) -> Type {
        let operand = self.infer(&select.operand);
        let field = match &operand {
            Type::Named(authz::AUTHORIZER) if select.field == "requestResource" => {
                Type::Named(authz::RESOURCE)
            }
            Type::Dyn => Type::Dyn,
            Type::Map(value) => Type::clone(value),
            Type::Object(object) => match object.fields.get(&select.field) {
                Some(ty) => ty.clone(),
                None => self.fault(at, format!("undefined field '{}'", select.field)),
            },
            other => self.fault(at, format!("type '{other}' does not support field selection")),
        };
        if select.test { Type::Bool } else { field }
    }

    fn comprehension(&mut self, of: &ComprehensionExpr) -> Type {
        let range = self.infer(&of.iter_range);
        let (first, second) = match &range {
            Type::List(item) if of.iter_var2.is_none() => (Type::clone(item), Type::Dyn),
            Type::List(item) => (Type::Int, Type::clone(item)),
            Type::Map(value) => (Type::String, Type::clone(value)),
            Type::Dyn => (Type::Dyn, Type::Dyn),
            other => {
                let text = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be \
                     list, map, or dynamic)"
                );
                (self.fault(of.iter_range.id, text), Type::Dyn)
            }
        };
        let start = self.infer(&of.accu_init);
        // A list that grows has the type of what is added.
        let accumulated = match start {
            Type::List(_) => Type::list(),
            other => other,
        };
        let depth = self.scope.len();
        self.scope.push((of.accu_var.clone(), accumulated));
        let outer = self.scope.len();
        self.scope.push((of.iter_var.clone(), first));
        if let Some(name) = &of.iter_var2 {
            self.scope.push((name.clone(), second));
        }
        self.infer(&of.loop_cond);
        self.infer(&of.loop_step);
        self.scope.truncate(outer);
        let result = self.infer(&of.result);
        self.scope.truncate(depth);
        result
    }

    fn call(&mut self, at: u64, call: &CallExpr) -> Type {
        if let Some(namespaced) = signatures::namespaced(call) {
            let arguments: Vec<_> = call.args.iter().map(|a| self.infer(a)).collect();
            return self.function(at, &namespaced, None, &arguments);
        }
        let target = call.target.as_ref().map(|target| self.infer(target));
        let arguments: Vec<_> = call.args.iter().map(|a| self.infer(a)).collect();
        match (target, self.operator(at, &call.func_name, &arguments)) {
            (None, Some(ty)) => ty,
            (target, _) => self.function(at, &call.func_name, target.as_ref(), &arguments),
        }
    }

    fn function(&mut self, at: u64, name: &str, target: Option<&Type>, arguments: &[Type]) -> Type {
        match signatures::find(name, target, arguments) {
            signatures::Found::Result(ty) => ty,
            signatures::Found::NoOverload => self.no_overload(at, name, &shown(target, arguments)),
            signatures::Found::Nothing => {
                self.fault(at, format!("undeclared reference to '{name}' (in container '')"))
            }
        }
    }

    fn no_overload(&mut self, at: u64, name: &str, arguments: &str) -> Type {
        self.fault(at, format!("found no matching overload for '{name}' applied to '{arguments}'"))
    }

    /// The result of an operator; `None` for a call of something else.
    fn operator(&mut self, at: u64, name: &str, arguments: &[Type]) -> Option<Type> {
        let result = match (name, arguments) {
            (operators::CONDITIONAL, [condition, yes, no]) => {
                condition.fits(&Type::Bool).then(|| common(&[yes.clone(), no.clone()]))
            }
            (operators::LOGICAL_AND | operators::LOGICAL_OR, all) => {
                all.iter().all(|a| a.fits(&Type::Bool)).then_some(Type::Bool)
            }
            (operators::LOGICAL_NOT | operators::NOT_STRICTLY_FALSE, [one]) => {
                one.fits(&Type::Bool).then_some(Type::Bool)
            }
            (operators::NEGATE, [one]) => {
                (*one == Type::Dyn || matches!(one, Type::Int | Type::Double)).then(|| one.clone())
            }
            (operators::EQUALS | operators::NOT_EQUALS, [a, b]) => {
                let differ = a.is_scalar() && b.is_scalar() && a != b;
                (!differ).then_some(Type::Bool)
            }
            (
                operators::LESS
                | operators::LESS_EQUALS
                | operators::GREATER
                | operators::GREATER_EQUALS,
                [a, b],
            ) => comparable(a, b).then_some(Type::Bool),
            (operators::ADD | operators::SUBSTRACT, [a, b]) => sum(name == operators::ADD, a, b),
            (operators::MULTIPLY | operators::DIVIDE, [a, b]) => arithmetic(a, b, Type::is_number),
            (operators::MODULO, [a, b]) => {
                arithmetic(a, b, |ty| matches!(ty, Type::Int | Type::UInt))
            }
            (operators::IN, [_, Type::Dyn | Type::List(_) | Type::Map(_)]) => Some(Type::Bool),
            (operators::IN, [_, _]) => None,
            (operators::INDEX, [of, by]) => indexed(of, by),
            (operators::OPT_INDEX | operators::OPT_SELECT, _) => Some(Type::Dyn),
            _ => return None,
        };
        Some(result.unwrap_or_else(|| self.no_overload(at, name, &shown(None, arguments))))
    }
}

fn literal_type(literal: &LiteralValue) -> Type {
    match literal {
        LiteralValue::Boolean(_) => Type::Bool,
        LiteralValue::Bytes(_) => Type::Bytes,
        LiteralValue::Double(_) => Type::Double,
        LiteralValue::Int(_) => Type::Int,
        LiteralValue::Null => Type::Null,
        LiteralValue::String(_) => Type::String,
        LiteralValue::UInt(_) => Type::UInt,
    }
}

/// The type that all of these have, or none in particular.
fn common(types: &[Type]) -> Type {
    match types {
        [first, rest @ ..] if rest.iter().all(|ty| ty == first) => first.clone(),
        _ => Type::Dyn,
    }
}

fn comparable(a: &Type, b: &Type) -> bool {
    let ordered =
        |ty: &Type| ty.is_scalar() || matches!(ty, Type::Dyn | Type::Duration | Type::Timestamp);
    ordered(a) && ordered(b) && (a.fits(b) || a.is_number() && b.is_number())
}

fn arithmetic(a: &Type, b: &Type, takes: fn(&Type) -> bool) -> Option<Type> {
    match (a, b) {
        (Type::Dyn, Type::Dyn) => Some(Type::Dyn),
        (Type::Dyn, known) | (known, Type::Dyn) => takes(known).then(|| known.clone()),
        (a, b) => (a == b && takes(a)).then(|| a.clone()),
    }
}

fn sum(adds: bool, a: &Type, b: &Type) -> Option<Type> {
    match (a, b) {
        (Type::Dyn, _) | (_, Type::Dyn) => Some(Type::Dyn),
        (Type::Timestamp, Type::Duration) => Some(Type::Timestamp),
        (Type::Duration, Type::Timestamp) if adds => Some(Type::Timestamp),
        (Type::Timestamp, Type::Timestamp) if !adds => Some(Type::Duration),
        (Type::Duration, Type::Duration) => Some(Type::Duration),
        (Type::List(a), Type::List(b)) if adds => {
            Some(Type::List(common(&[Type::clone(a), Type::clone(b)]).into()))
        }
        (Type::String | Type::Bytes, _) if adds && a == b => Some(a.clone()),
        (a, b) => arithmetic(a, b, Type::is_number),
    }
}

fn indexed(of: &Type, by: &Type) -> Option<Type> {
    match of {
        Type::Dyn => Some(Type::Dyn),
        Type::List(item) if *by == Type::Dyn || by.is_number() => Some(Type::clone(item)),
        Type::Map(value) => Some(Type::clone(value)),
        Type::Object(_) if by.fits(&Type::String) => Some(Type::Dyn),
        _ => None,
    }
}

/// `(int, string)`, or `string.(int)` for a member function.
fn shown(target: Option<&Type>, arguments: &[Type]) -> String {
    let list: Vec<_> = arguments.iter().map(ToString::to_string).collect();
    match target {
        Some(target) => format!("{target}.({})", list.join(", ")),
        None => format!("({})", list.join(", ")),
    }
}
