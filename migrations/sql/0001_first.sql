-- The first schema. To add a migration: copy the newest file's number plus one, write only what
-- SQLite and PostgreSQL both understand (TEXT ids, BIGINT times in Unix milliseconds, JSON as
-- TEXT), and first expand, then contract: the release before must still run on the new schema.

CREATE TABLE doorbell (
    name  TEXT PRIMARY KEY,
    count BIGINT NOT NULL
);
INSERT INTO doorbell (name, count) VALUES ('writes', 0);

CREATE TABLE users (
    id            TEXT PRIMARY KEY,
    login         TEXT NOT NULL UNIQUE,
    display_name  TEXT NOT NULL,
    password_hash TEXT NOT NULL,
    operator      BIGINT NOT NULL,
    disabled      BIGINT NOT NULL,
    must_change   BIGINT NOT NULL,
    failed_logins BIGINT NOT NULL,
    locked_until_ms BIGINT NOT NULL,
    created_ms    BIGINT NOT NULL
);

CREATE TABLE sessions (
    id           TEXT PRIMARY KEY,
    user_id      TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    token_hash   TEXT NOT NULL UNIQUE,
    csrf_secret  TEXT NOT NULL,
    remote       TEXT NOT NULL,
    user_agent   TEXT NOT NULL,
    created_ms   BIGINT NOT NULL,
    last_used_ms BIGINT NOT NULL,
    expires_ms   BIGINT NOT NULL
);
CREATE INDEX sessions_by_user ON sessions (user_id);

CREATE TABLE organizations (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE,
    created_ms BIGINT NOT NULL
);

CREATE TABLE memberships (
    org_id     TEXT NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    user_id    TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    role       TEXT NOT NULL,
    created_ms BIGINT NOT NULL,
    PRIMARY KEY (org_id, user_id)
);
CREATE INDEX memberships_by_user ON memberships (user_id);

CREATE TABLE api_tokens (
    id           TEXT PRIMARY KEY,
    org_id       TEXT NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    user_id      TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    name         TEXT NOT NULL,
    token_hash   TEXT NOT NULL UNIQUE,
    scope        TEXT NOT NULL,
    created_ms   BIGINT NOT NULL,
    expires_ms   BIGINT,
    last_used_ms BIGINT,
    UNIQUE (org_id, user_id, name)
);

CREATE TABLE versions (
    name       TEXT PRIMARY KEY,
    state      TEXT NOT NULL,
    is_default BIGINT NOT NULL,
    end_of_support_ms BIGINT
);
INSERT INTO versions (name, state, is_default, end_of_support_ms) VALUES ('1.35', 'offered', 1, NULL);

CREATE TABLE hosts (
    id           TEXT PRIMARY KEY,
    name         TEXT NOT NULL UNIQUE,
    agent_url    TEXT NOT NULL,
    zone         TEXT NOT NULL,
    schedulable  BIGINT NOT NULL,
    vcpus        BIGINT NOT NULL,
    memory_mib   BIGINT NOT NULL,
    disk_gib     BIGINT NOT NULL,
    port_min     BIGINT NOT NULL,
    port_max     BIGINT NOT NULL,
    gateway      TEXT NOT NULL,
    drivers      TEXT NOT NULL,
    message      TEXT NOT NULL,
    last_seen_ms BIGINT NOT NULL,
    created_ms   BIGINT NOT NULL
);

CREATE TABLE clusters (
    id            TEXT PRIMARY KEY,
    org_id        TEXT NOT NULL REFERENCES organizations (id),
    name          TEXT NOT NULL,
    version       TEXT NOT NULL REFERENCES versions (name),
    control_plane TEXT NOT NULL,
    driver        TEXT NOT NULL,
    pod_cidr      TEXT NOT NULL,
    service_cidr  TEXT NOT NULL,
    vpc_cidr      TEXT NOT NULL,
    generation    BIGINT NOT NULL,
    created_by    TEXT NOT NULL,
    created_ms    BIGINT NOT NULL,
    deletion_requested_ms BIGINT,
    UNIQUE (org_id, name)
);

CREATE TABLE cluster_observed (
    cluster_id          TEXT PRIMARY KEY REFERENCES clusters (id) ON DELETE CASCADE,
    phase               TEXT NOT NULL,
    message             TEXT NOT NULL,
    observed_generation BIGINT NOT NULL,
    endpoint            TEXT NOT NULL,
    server_name         TEXT NOT NULL,
    steps               TEXT NOT NULL,
    ready_ms            BIGINT,
    updated_ms          BIGINT NOT NULL
);

CREATE TABLE members (
    id          TEXT PRIMARY KEY,
    cluster_id  TEXT NOT NULL REFERENCES clusters (id) ON DELETE CASCADE,
    kind        TEXT NOT NULL,
    ordinal     BIGINT NOT NULL,
    host_id     TEXT NOT NULL REFERENCES hosts (id),
    started     BIGINT NOT NULL,
    state       TEXT NOT NULL,
    message     TEXT NOT NULL,
    pid         BIGINT NOT NULL,
    restarts    BIGINT NOT NULL,
    updated_ms  BIGINT NOT NULL,
    UNIQUE (cluster_id, kind, ordinal)
);
CREATE INDEX members_by_host ON members (host_id);

CREATE TABLE ports (
    host_id   TEXT NOT NULL REFERENCES hosts (id),
    port      BIGINT NOT NULL,
    member_id TEXT NOT NULL REFERENCES members (id) ON DELETE CASCADE,
    purpose   TEXT NOT NULL,
    PRIMARY KEY (host_id, port),
    UNIQUE (member_id, purpose)
);

CREATE TABLE node_groups (
    id          TEXT PRIMARY KEY,
    cluster_id  TEXT NOT NULL REFERENCES clusters (id) ON DELETE CASCADE,
    name        TEXT NOT NULL,
    desired     BIGINT NOT NULL,
    driver      TEXT NOT NULL,
    vcpus       BIGINT NOT NULL,
    memory_mib  BIGINT NOT NULL,
    disk_gib    BIGINT NOT NULL,
    labels      TEXT NOT NULL,
    taints      TEXT NOT NULL,
    generation  BIGINT NOT NULL,
    created_ms  BIGINT NOT NULL,
    deletion_requested_ms BIGINT,
    UNIQUE (cluster_id, name)
);

CREATE TABLE node_group_observed (
    group_id            TEXT PRIMARY KEY REFERENCES node_groups (id) ON DELETE CASCADE,
    observed_generation BIGINT NOT NULL,
    total               BIGINT NOT NULL,
    ready               BIGINT NOT NULL,
    message             TEXT NOT NULL,
    updated_ms          BIGINT NOT NULL
);

CREATE TABLE nodes (
    id           TEXT PRIMARY KEY,
    cluster_id   TEXT NOT NULL REFERENCES clusters (id) ON DELETE CASCADE,
    group_id     TEXT NOT NULL REFERENCES node_groups (id) ON DELETE CASCADE,
    name         TEXT NOT NULL,
    host_id      TEXT NOT NULL REFERENCES hosts (id),
    address      TEXT NOT NULL,
    mac          TEXT NOT NULL,
    driver       TEXT NOT NULL,
    vcpus        BIGINT NOT NULL,
    memory_mib   BIGINT NOT NULL,
    disk_gib     BIGINT NOT NULL,
    phase        TEXT NOT NULL,
    joined       BIGINT NOT NULL,
    ready        BIGINT NOT NULL,
    message      TEXT NOT NULL,
    phase_since_ms BIGINT NOT NULL,
    created_ms   BIGINT NOT NULL,
    deletion_requested_ms BIGINT,
    deletion_reason TEXT NOT NULL,
    UNIQUE (cluster_id, name),
    UNIQUE (cluster_id, address)
);
CREATE INDEX nodes_by_host ON nodes (host_id);

-- Events outlive their cluster: no foreign key.
CREATE TABLE events (
    seq        BIGINT PRIMARY KEY,
    org_id     TEXT NOT NULL,
    cluster_id TEXT NOT NULL,
    time_ms    BIGINT NOT NULL,
    kind       TEXT NOT NULL,
    severity   TEXT NOT NULL,
    subject    TEXT NOT NULL,
    message    TEXT NOT NULL
);
CREATE INDEX events_by_cluster ON events (cluster_id, seq);
CREATE INDEX events_by_org ON events (org_id, seq);

CREATE TABLE secrets (
    owner      TEXT NOT NULL,
    name       TEXT NOT NULL,
    sealed     TEXT NOT NULL,
    updated_ms BIGINT NOT NULL,
    PRIMARY KEY (owner, name)
);

-- The audit log is append-only: this crate has no statement that changes or deletes a row.
CREATE TABLE audit (
    seq        BIGINT PRIMARY KEY,
    time_ms    BIGINT NOT NULL,
    org_id     TEXT NOT NULL,
    actor      TEXT NOT NULL,
    remote     TEXT NOT NULL,
    action     TEXT NOT NULL,
    target     TEXT NOT NULL,
    outcome    TEXT NOT NULL,
    detail     TEXT NOT NULL
);
CREATE INDEX audit_by_org ON audit (org_id, seq);

CREATE TABLE idempotency (
    org_id       TEXT NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    key          TEXT NOT NULL,
    request_hash TEXT NOT NULL,
    resource     TEXT NOT NULL,
    created_ms   BIGINT NOT NULL,
    PRIMARY KEY (org_id, key)
);

CREATE TABLE leases (
    name       TEXT PRIMARY KEY,
    holder     TEXT NOT NULL,
    expires_ms BIGINT NOT NULL
);
