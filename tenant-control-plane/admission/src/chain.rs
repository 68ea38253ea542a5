//! The chain of enabled plugins.

use std::sync::Arc;

use machinery::amounts::Amounts;
use machinery::{GroupResource, ObjectSource, Status};
use serde_json::Value;

use crate::attributes::{AccessCheck, Attributes};
use crate::plugins::{self, Plugin};

/// What plugins read beside the request.
pub(crate) struct Context {
    pub(crate) source: Arc<dyn ObjectSource>,
    pub(crate) access: Arc<dyn AccessCheck>,
}

impl Context {
    /// A core object of the cache.
    pub(crate) fn core(&self, resource: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.source.get(&GroupResource::new("", resource), namespace, name)
    }
}

/// What a new object adds to what a ResourceQuota of its namespace shows as used.
#[derive(Clone, Debug)]
pub struct Charge {
    /// Name of the quota.
    pub quota: String,
    /// By the names in `spec.hard`.
    pub amounts: Amounts,
}

/// A plugin name that nobody knows.
#[derive(Debug, thiserror::Error)]
#[error("admission plugin \"{name}\" is unknown")]
pub struct UnknownPlugin {
    /// The name.
    pub name: String,
}

/// The enabled plugins in their fixed order.
pub struct Chain {
    plugins: Vec<Box<dyn Plugin>>,
    context: Context,
}

impl Chain {
    /// The default plugins, with those of `enable` (`--enable-admission-plugins`) and without
    /// those of `disable` (`--disable-admission-plugins`).
    ///
    /// # Errors
    /// When a name is unknown. Plugins of upstream that this crate does not have (webhooks,
    /// policies) are known, and left out.
    pub fn new(
        enable: &[String],
        disable: &[String],
        source: Arc<dyn ObjectSource>,
        access: Arc<dyn AccessCheck>,
    ) -> Result<Self, UnknownPlugin> {
        for name in enable.iter().chain(disable) {
            if !plugins::known_plugins().any(|known| known == name) {
                return Err(UnknownPlugin { name: name.clone() });
            }
        }
        let has = |list: &[String], name: &str| list.iter().any(|item| item == name);
        let plugins = plugins::all()
            .filter(|(name, default, _)| has(enable, name) || (*default && !has(disable, name)))
            .map(|(_, _, make)| make())
            .collect();
        Ok(Self { plugins, context: Context { source, access } })
    }

    /// An object that the request needs, that is not there yet, and that a controller makes on its
    /// own: resource, namespace and name. The API server waits for it for a moment (upstream: up
    /// to ten tries of 0.1 to 0.2 s) before it calls [`Self::mutate`], which would refuse.
    ///
    /// At present: the ServiceAccount `default` of a namespace that was just made.
    pub fn awaits(
        &self,
        attributes: &Attributes<'_>,
        object: &Value,
    ) -> Option<(GroupResource, String, String)> {
        self.plugins.iter().find_map(|plugin| plugin.awaits(&self.context, attributes, object))
    }

    /// Lets each plugin fill in and change the object. Returns warnings for the client.
    ///
    /// # Errors
    /// The first refusal.
    pub fn mutate(
        &self,
        attributes: &Attributes<'_>,
        object: &mut Value,
    ) -> Result<Vec<String>, Status> {
        for plugin in &self.plugins {
            plugin.mutate(&self.context, attributes, object)?;
        }
        Ok(Vec::new())
    }

    /// What storing a new object adds to the quotas of its namespace.
    pub fn charges(&self, attributes: &Attributes<'_>, object: &Value) -> Vec<Charge> {
        let all = self.plugins.iter();
        all.flat_map(|plugin| plugin.charges(&self.context, attributes, object)).collect()
    }

    /// Lets each plugin judge the object (`None` for deletes), but those of [`Self::settle`].
    /// Returns warnings for the client.
    ///
    /// # Errors
    /// The first refusal.
    pub fn validate(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&Value>,
    ) -> Result<Vec<String>, Status> {
        self.judge(attributes, object, false)
    }

    /// Lets those plugins judge that come last, when nobody else may refuse any more: what they
    /// admit, they count. Policies and webhooks have their say between [`Self::validate`] and this.
    ///
    /// # Errors
    /// The first refusal.
    pub fn settle(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&Value>,
    ) -> Result<Vec<String>, Status> {
        self.judge(attributes, object, true)
    }

    fn judge(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&Value>,
        last: bool,
    ) -> Result<Vec<String>, Status> {
        let mut warnings = Vec::new();
        for plugin in self.plugins.iter().filter(|plugin| plugin.comes_last() == last) {
            plugin.validate(&self.context, attributes, object, &mut warnings)?;
        }
        Ok(warnings)
    }
}
