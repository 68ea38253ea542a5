//! The users and roles that all members agree on.

use std::collections::{BTreeMap, HashMap};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use etcd_api::error::EtcdError;
use etcd_api::pb::authpb::{Permission, Role, User, UserAddOptions};
use etcd_api::pb::etcdserverpb::{
    AuthRoleAddRequest, AuthRoleDeleteRequest, AuthRoleGrantPermissionRequest,
    AuthRoleRevokePermissionRequest, AuthUserAddRequest, AuthUserChangePasswordRequest,
    AuthUserDeleteRequest, AuthUserGrantRoleRequest, AuthUserRevokeRoleRequest,
};

use super::ROOT;
use super::grants::{Access, Grants, is_range};
use crate::pb;
use crate::pb::auth_change::Change;

type Done = Result<(), EtcdError>;

/// Users, roles, and whether they matter.
#[derive(Debug, Clone)]
pub struct Store {
    /// Whether requests need a user.
    pub enabled: bool,
    /// Grows with each change: who was recognized at an older one has to be recognized again.
    pub revision: u64,
    /// By name.
    pub users: BTreeMap<String, User>,
    /// By name.
    pub roles: BTreeMap<String, Role>,
    /// By user; follows from the two above.
    grants: HashMap<String, Grants>,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            enabled: false,
            revision: 1,
            users: BTreeMap::new(),
            roles: BTreeMap::new(),
            grants: HashMap::new(),
        }
    }
}

fn name_of(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

impl Store {
    /// As stored. Nothing stored means that there never was a user.
    pub fn load(stored: Option<&pb::AuthState>) -> Self {
        let Some(stored) = stored else { return Self::default() };
        let users = stored.users.iter().map(|user| (name_of(&user.name), user.clone()));
        let roles = stored.roles.iter().map(|role| (name_of(&role.name), role.clone()));
        let mut store = Self {
            enabled: stored.enabled,
            revision: stored.revision,
            users: users.collect(),
            roles: roles.collect(),
            grants: HashMap::new(),
        };
        store.renew_grants();
        store
    }

    /// To be stored.
    pub fn save(&self) -> pb::AuthState {
        pb::AuthState {
            enabled: self.enabled,
            revision: self.revision,
            users: self.users.values().cloned().collect(),
            roles: self.roles.values().cloned().collect(),
        }
    }

    /// Carries out a change. An error leaves everything as it was.
    pub fn change(&mut self, change: Change) -> Done {
        let before = self.revision;
        match change {
            Change::Enable(_) => self.enable()?,
            Change::Disable(_) if !self.enabled => {}
            Change::Disable(_) => {
                self.enabled = false;
                self.revision += 1;
            }
            Change::UserAdd(r) => self.add_user(r)?,
            Change::UserDelete(r) => self.delete_user(&r)?,
            Change::UserChangePassword(r) => self.change_password(&r)?,
            Change::UserGrantRole(r) => self.grant_role(r)?,
            Change::UserRevokeRole(r) => self.revoke_role(&r)?,
            Change::RoleAdd(r) => self.add_role(r)?,
            Change::RoleDelete(r) => self.delete_role(&r)?,
            Change::RoleGrantPermission(r) => self.grant_permission(r)?,
            Change::RoleRevokePermission(r) => self.revoke_permission(&r)?,
        }
        if self.revision != before {
            self.renew_grants();
        }
        Ok(())
    }

    fn renew_grants(&mut self) {
        let of = |user: &User| Grants::of(&user.roles, &self.roles);
        self.grants = self.users.iter().map(|(name, user)| (name.clone(), of(user))).collect();
    }

    fn enable(&mut self) -> Done {
        let root = self.users.get(ROOT).ok_or(EtcdError::RootUserNotExist)?;
        if !root.roles.iter().any(|role| role == ROOT) {
            return Err(EtcdError::RootRoleNotExist);
        }
        self.enabled = true;
        Ok(())
    }

    fn user(&mut self, name: &str) -> Result<&mut User, EtcdError> {
        self.users.get_mut(name).ok_or(EtcdError::UserNotFound)
    }

    fn role(&mut self, name: &str) -> Result<&mut Role, EtcdError> {
        self.roles.get_mut(name).ok_or(EtcdError::RoleNotFound)
    }

    fn add_user(&mut self, r: AuthUserAddRequest) -> Done {
        if r.name.is_empty() {
            return Err(EtcdError::UserEmpty);
        }
        if self.users.contains_key(&r.name) {
            return Err(EtcdError::UserAlreadyExists);
        }
        let options = r.options.unwrap_or_default();
        let password = stored_password(&options, &r.hashed_password)?;
        let user = User {
            name: r.name.clone().into(),
            password,
            roles: Vec::new(),
            options: Some(options),
        };
        self.users.insert(r.name, user);
        self.revision += 1;
        Ok(())
    }

    fn delete_user(&mut self, r: &AuthUserDeleteRequest) -> Done {
        if self.enabled && r.name == ROOT {
            return Err(EtcdError::InvalidAuthMgmt);
        }
        self.users.remove(&r.name).ok_or(EtcdError::UserNotFound)?;
        self.revision += 1;
        Ok(())
    }

    fn change_password(&mut self, r: &AuthUserChangePasswordRequest) -> Done {
        let user = self.user(&r.name)?;
        user.password = stored_password(&user.options.unwrap_or_default(), &r.hashed_password)?;
        self.revision += 1;
        Ok(())
    }

    fn grant_role(&mut self, r: AuthUserGrantRoleRequest) -> Done {
        self.user(&r.user)?;
        if r.role != ROOT {
            self.role(&r.role)?;
        }
        let user = self.user(&r.user)?;
        if let Err(at) = user.roles.binary_search(&r.role) {
            user.roles.insert(at, r.role);
            self.revision += 1;
        }
        Ok(())
    }

    fn revoke_role(&mut self, r: &AuthUserRevokeRoleRequest) -> Done {
        if self.enabled && r.name == ROOT && r.role == ROOT {
            return Err(EtcdError::InvalidAuthMgmt);
        }
        let user = self.user(&r.name)?;
        let at = user.roles.iter().position(|role| *role == r.role);
        user.roles.remove(at.ok_or(EtcdError::RoleNotGranted)?);
        self.revision += 1;
        Ok(())
    }

    fn add_role(&mut self, r: AuthRoleAddRequest) -> Done {
        if r.name.is_empty() {
            return Err(EtcdError::RoleEmpty);
        }
        if self.roles.contains_key(&r.name) {
            return Err(EtcdError::RoleAlreadyExists);
        }
        let role = Role { name: r.name.clone().into(), key_permission: Vec::new() };
        self.roles.insert(r.name, role);
        self.revision += 1;
        Ok(())
    }

    fn delete_role(&mut self, r: &AuthRoleDeleteRequest) -> Done {
        if self.enabled && r.role == ROOT {
            return Err(EtcdError::InvalidAuthMgmt);
        }
        self.roles.remove(&r.role).ok_or(EtcdError::RoleNotFound)?;
        for user in self.users.values_mut() {
            user.roles.retain(|role| *role != r.role);
        }
        self.revision += 1;
        Ok(())
    }

    fn grant_permission(&mut self, r: AuthRoleGrantPermissionRequest) -> Done {
        let wanted = r.perm.ok_or(EtcdError::PermissionNotGiven)?;
        if !is_range(&wanted) {
            return Err(EtcdError::InvalidAuthMgmt);
        }
        let list = &mut self.role(&r.name)?.key_permission;
        let same = |p: &&mut Permission| p.key == wanted.key && p.range_end == wanted.range_end;
        match list.iter_mut().find(same) {
            Some(there) => there.perm_type = wanted.perm_type,
            None => {
                let at = list.partition_point(|p| p.key <= wanted.key);
                list.insert(at, wanted);
            }
        }
        self.revision += 1;
        Ok(())
    }

    fn revoke_permission(&mut self, r: &AuthRoleRevokePermissionRequest) -> Done {
        let list = &mut self.role(&r.role)?.key_permission;
        let before = list.len();
        list.retain(|p| p.key != r.key || p.range_end != r.range_end);
        if list.len() == before {
            return Err(EtcdError::PermissionNotGranted);
        }
        self.revision += 1;
        Ok(())
    }

    /// Whether somebody may do this with keys.
    pub fn may(
        &self,
        caller: Option<&pb::Caller>,
        access: Access,
        key: &[u8],
        range_end: &[u8],
    ) -> Done {
        if !self.enabled || caller.is_some_and(|caller| caller.internal) {
            return Ok(());
        }
        let caller = named(caller)?;
        if caller.revision < self.revision {
            return Err(EtcdError::AuthOldRevision);
        }
        let user = self.users.get(&caller.user).ok_or(EtcdError::PermissionDenied)?;
        let grants = self.grants.get(&caller.user);
        match is_root(user) || grants.is_some_and(|g| g.cover(access, key, range_end)) {
            true => Ok(()),
            false => Err(EtcdError::PermissionDenied),
        }
    }

    /// Whether somebody may do everything.
    pub fn may_administer(&self, caller: Option<&pb::Caller>) -> Done {
        if !self.enabled || caller.is_some_and(|caller| caller.internal) {
            return Ok(());
        }
        let user = self.users.get(&named(caller)?.user).ok_or(EtcdError::UserNotFound)?;
        if is_root(user) { Ok(()) } else { Err(EtcdError::PermissionDenied) }
    }

    /// Whether a user is known, whatever it may do.
    pub fn must_be_named(&self, caller: Option<&pb::Caller>) -> Done {
        match self.enabled && !caller.is_some_and(|caller| caller.internal) {
            true => named(caller).map(|_| ()),
            false => Ok(()),
        }
    }

    /// Whether nothing has changed since somebody was recognized: what has been read is theirs.
    pub fn is_still(&self, caller: Option<&pb::Caller>) -> Done {
        match caller {
            Some(caller) if caller.revision != 0 && caller.revision != self.revision => {
                Err(EtcdError::AuthOldRevision)
            }
            _ => Ok(()),
        }
    }
}

fn named(caller: Option<&pb::Caller>) -> Result<&pb::Caller, EtcdError> {
    caller.filter(|caller| !caller.user.is_empty()).ok_or(EtcdError::UserEmpty)
}

fn is_root(user: &User) -> bool {
    user.roles.iter().any(|role| role == ROOT)
}

/// The hash as it is stored, from its Base64.
fn stored_password(options: &UserAddOptions, hashed: &str) -> Result<Bytes, EtcdError> {
    if options.no_password {
        return Ok(Bytes::new());
    }
    STANDARD.decode(hashed).map(Bytes::from).map_err(|_| EtcdError::NoPasswordUser)
}
