-- The ledger's tables. Written by `python -m schema.dump` from the migrations; do not edit.

CREATE TABLE public.answer (
    corpus_id bigint NOT NULL,
    id bigint NOT NULL,
    key text NOT NULL COLLATE pg_catalog."C",
    recorded_at timestamp with time zone DEFAULT now() NOT NULL,
    validated_at timestamp with time zone DEFAULT now() NOT NULL,
    snapshot_epoch bigint NOT NULL,
    epoch bigint NOT NULL,
    verdict text NOT NULL,
    policy text NOT NULL,
    scope text NOT NULL,
    validations integer DEFAULT 1 NOT NULL,
    delivered_epoch bigint,
    delivered_at timestamp with time zone,
    reader text NOT NULL,
    labels bytea[] NOT NULL
);

CREATE TABLE public.answer_citation (
    corpus_id bigint NOT NULL,
    answer_id bigint NOT NULL,
    chunk_id bigint,
    ref bigint,
    status text,
    cited_epoch bigint,
    rested_epoch bigint
);

ALTER TABLE public.answer ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.answer_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.api_key (
    id text NOT NULL,
    name text NOT NULL,
    hash bytea NOT NULL,
    role text NOT NULL,
    corpora text[],
    principals text[],
    rate_per_s double precision,
    comment text,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    expires_at timestamp with time zone,
    revoked_at timestamp with time zone,
    last_used_at timestamp with time zone,
    CONSTRAINT api_key_role_check CHECK ((role = ANY (ARRAY['reader'::text, 'writer'::text, 'admin'::text])))
);

CREATE TABLE public.chunk (
    corpus_id bigint NOT NULL,
    id bigint NOT NULL,
    document_id bigint NOT NULL,
    content_hash bytea NOT NULL,
    text text,
    born_epoch bigint NOT NULL,
    died_epoch bigint,
    cause text,
    touched_epoch bigint NOT NULL
);

CREATE SEQUENCE public.chunk_id_seq
    START WITH 100001
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

CREATE TABLE public.commit_log (
    corpus_id bigint NOT NULL,
    epoch bigint NOT NULL,
    committed_at timestamp with time zone NOT NULL,
    actor text,
    reason text,
    idempotency_key text,
    request_hash bytea NOT NULL,
    summary jsonb NOT NULL,
    prev_hash bytea NOT NULL,
    hash bytea NOT NULL,
    digest bytea,
    redacted_by bigint
);

CREATE TABLE public.corpus (
    id bigint NOT NULL,
    name text NOT NULL,
    epoch bigint DEFAULT 0 NOT NULL,
    horizon bigint DEFAULT 0 NOT NULL,
    payload_epoch bigint DEFAULT 0 NOT NULL,
    last_committed_at timestamp with time zone,
    filterable jsonb NOT NULL,
    retention_s bigint,
    verdict_ttl_ms integer NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    generation_id bigint NOT NULL
);

ALTER TABLE public.corpus ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.corpus_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.document (
    corpus_id bigint NOT NULL,
    id bigint NOT NULL,
    key text NOT NULL COLLATE pg_catalog."C",
    version bigint NOT NULL,
    alive boolean NOT NULL,
    acl jsonb NOT NULL,
    metadata jsonb NOT NULL,
    touched_epoch bigint NOT NULL,
    metadata_epoch bigint NOT NULL
);

CREATE SEQUENCE public.document_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

CREATE TABLE public.document_version (
    corpus_id bigint NOT NULL,
    document_id bigint NOT NULL,
    version bigint NOT NULL,
    key text NOT NULL COLLATE pg_catalog."C",
    born_epoch bigint NOT NULL,
    died_epoch bigint,
    cause text,
    title text,
    uri text,
    metadata jsonb NOT NULL,
    acl jsonb NOT NULL,
    chunk_ids bigint[] NOT NULL
);

CREATE TABLE public.dropped_collection (
    corpus_id bigint NOT NULL,
    generation_id bigint NOT NULL,
    collection text NOT NULL,
    embedding jsonb NOT NULL,
    dropped_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE public.embedding (
    corpus_id bigint NOT NULL,
    generation_id bigint NOT NULL,
    chunk_id bigint NOT NULL,
    vector bytea NOT NULL
);
ALTER TABLE ONLY public.embedding ALTER COLUMN vector SET STORAGE EXTERNAL;

CREATE TABLE public.erasure (
    corpus_id bigint NOT NULL,
    id bigint NOT NULL,
    epoch bigint NOT NULL,
    keys text[] NOT NULL,
    keys_too boolean NOT NULL,
    document_ids bigint[] NOT NULL,
    chunk_ids bigint[] NOT NULL,
    versions integer NOT NULL,
    redactions jsonb NOT NULL,
    stores jsonb NOT NULL,
    completed_at timestamp with time zone
);

CREATE SEQUENCE public.erasure_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

CREATE TABLE public.finding (
    corpus_id bigint NOT NULL,
    reconciliation_id bigint NOT NULL,
    number integer NOT NULL,
    kind text NOT NULL,
    chunk_id bigint,
    document_id bigint,
    evidence jsonb NOT NULL,
    repaired boolean NOT NULL
);

CREATE TABLE public.index_generation (
    corpus_id bigint NOT NULL,
    id bigint NOT NULL,
    embedding jsonb NOT NULL,
    collection text NOT NULL,
    state text NOT NULL,
    applied_epoch bigint DEFAULT 0 NOT NULL,
    leader_term bigint DEFAULT 0 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    verified_epoch bigint,
    problem text,
    CONSTRAINT index_generation_state_check CHECK ((state = ANY (ARRAY['building'::text, 'serving'::text, 'standby'::text, 'retired'::text])))
);

ALTER TABLE public.index_generation ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME public.index_generation_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.ledger (
    singleton boolean DEFAULT true NOT NULL,
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    CONSTRAINT ledger_one_row_check CHECK (singleton)
);

CREATE TABLE public.pin (
    corpus_id bigint NOT NULL,
    id bigint NOT NULL,
    epoch bigint NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL
);

ALTER TABLE public.pin ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.pin_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.reconciliation (
    corpus_id bigint NOT NULL,
    id bigint NOT NULL,
    generation_id bigint NOT NULL,
    repair boolean NOT NULL,
    verify_vectors boolean NOT NULL,
    max_drift_ratio double precision NOT NULL,
    points_per_s integer,
    state text NOT NULL,
    detail text,
    epoch bigint NOT NULL,
    history text NOT NULL,
    phase text NOT NULL,
    place bigint NOT NULL,
    points bigint NOT NULL,
    in_flight bigint NOT NULL,
    expected bigint NOT NULL,
    found jsonb NOT NULL,
    remaining jsonb NOT NULL,
    started_at timestamp with time zone DEFAULT now() NOT NULL,
    finished_at timestamp with time zone,
    resumed integer DEFAULT 0 NOT NULL,
    CONSTRAINT reconciliation_state_check CHECK ((state = ANY (ARRAY['running'::text, 'complete'::text, 'stopped'::text, 'failed'::text])))
);

ALTER TABLE public.reconciliation ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.reconciliation_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.webhook (
    corpus_id bigint NOT NULL,
    id bigint NOT NULL,
    url text NOT NULL,
    secret bytea NOT NULL,
    scope text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    position_epoch bigint NOT NULL,
    position_answer bigint NOT NULL,
    attempts integer DEFAULT 0 NOT NULL,
    next_attempt_at timestamp with time zone DEFAULT now() NOT NULL,
    last_error text,
    delivered_at timestamp with time zone,
    disabled_at timestamp with time zone
);

CREATE TABLE public.webhook_dead_letter (
    corpus_id bigint NOT NULL,
    webhook_id bigint NOT NULL,
    epoch bigint NOT NULL,
    answer_id bigint NOT NULL,
    attempts integer NOT NULL,
    error text NOT NULL,
    failed_at timestamp with time zone DEFAULT now() NOT NULL,
    due boolean DEFAULT false NOT NULL
);

ALTER TABLE public.webhook ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.webhook_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

ALTER TABLE ONLY public.answer_citation
    ADD CONSTRAINT answer_citation_corpus_id_answer_id_chunk_id_ref_key UNIQUE NULLS NOT DISTINCT (corpus_id, answer_id, chunk_id, ref);

ALTER TABLE ONLY public.answer
    ADD CONSTRAINT answer_corpus_id_key_key UNIQUE (corpus_id, key);

ALTER TABLE ONLY public.answer
    ADD CONSTRAINT answer_pkey PRIMARY KEY (corpus_id, id);

ALTER TABLE ONLY public.api_key
    ADD CONSTRAINT api_key_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.chunk
    ADD CONSTRAINT chunk_pkey PRIMARY KEY (corpus_id, id);

ALTER TABLE ONLY public.commit_log
    ADD CONSTRAINT commit_log_pkey PRIMARY KEY (corpus_id, epoch);

ALTER TABLE ONLY public.corpus
    ADD CONSTRAINT corpus_name_key UNIQUE (name);

ALTER TABLE ONLY public.corpus
    ADD CONSTRAINT corpus_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.document
    ADD CONSTRAINT document_living_key EXCLUDE USING btree (corpus_id WITH =, key WITH =) WHERE (alive) DEFERRABLE INITIALLY DEFERRED;

ALTER TABLE ONLY public.document
    ADD CONSTRAINT document_pkey PRIMARY KEY (corpus_id, id);

ALTER TABLE ONLY public.document_version
    ADD CONSTRAINT document_version_pkey PRIMARY KEY (corpus_id, document_id, version);

ALTER TABLE ONLY public.dropped_collection
    ADD CONSTRAINT dropped_collection_pkey PRIMARY KEY (corpus_id, generation_id);

ALTER TABLE ONLY public.embedding
    ADD CONSTRAINT embedding_pkey PRIMARY KEY (corpus_id, generation_id, chunk_id);

ALTER TABLE ONLY public.erasure
    ADD CONSTRAINT erasure_pkey PRIMARY KEY (corpus_id, id);

ALTER TABLE ONLY public.finding
    ADD CONSTRAINT finding_pkey PRIMARY KEY (corpus_id, reconciliation_id, number);

ALTER TABLE ONLY public.index_generation
    ADD CONSTRAINT index_generation_collection_key UNIQUE (collection);

ALTER TABLE ONLY public.index_generation
    ADD CONSTRAINT index_generation_one_beside EXCLUDE USING btree (corpus_id WITH =) WHERE ((state = ANY (ARRAY['building'::text, 'standby'::text]))) DEFERRABLE INITIALLY DEFERRED;

ALTER TABLE ONLY public.index_generation
    ADD CONSTRAINT index_generation_one_serving EXCLUDE USING btree (corpus_id WITH =) WHERE ((state = 'serving'::text)) DEFERRABLE INITIALLY DEFERRED;

ALTER TABLE ONLY public.index_generation
    ADD CONSTRAINT index_generation_pkey PRIMARY KEY (corpus_id, id);

ALTER TABLE ONLY public.ledger
    ADD CONSTRAINT ledger_pkey PRIMARY KEY (singleton);

ALTER TABLE ONLY public.pin
    ADD CONSTRAINT pin_pkey PRIMARY KEY (corpus_id, id);

ALTER TABLE ONLY public.reconciliation
    ADD CONSTRAINT reconciliation_pkey PRIMARY KEY (corpus_id, id);

ALTER TABLE ONLY public.webhook_dead_letter
    ADD CONSTRAINT webhook_dead_letter_pkey PRIMARY KEY (corpus_id, webhook_id, epoch, answer_id);

ALTER TABLE ONLY public.webhook
    ADD CONSTRAINT webhook_pkey PRIMARY KEY (corpus_id, id);

CREATE INDEX answer_citation_by_chunk ON public.answer_citation USING btree (corpus_id, chunk_id, answer_id) INCLUDE (ref, cited_epoch, rested_epoch);

CREATE INDEX answer_corpus_id_validated_at_idx ON public.answer USING btree (corpus_id, validated_at);

CREATE UNIQUE INDEX api_key_living_name ON public.api_key USING btree (name) WHERE (revoked_at IS NULL);

CREATE INDEX chunk_corpus_id_content_hash_idx ON public.chunk USING btree (corpus_id, content_hash);

CREATE INDEX chunk_corpus_id_document_id_idx ON public.chunk USING btree (corpus_id, document_id);

CREATE INDEX chunk_corpus_id_touched_epoch_id_idx ON public.chunk USING btree (corpus_id, touched_epoch, id);

CREATE INDEX chunk_deaths ON public.chunk USING btree (corpus_id, died_epoch, id) WHERE (died_epoch IS NOT NULL);

CREATE INDEX chunk_removable ON public.chunk USING btree (corpus_id, died_epoch, id) WHERE ((died_epoch IS NOT NULL) AND (text IS NOT NULL));

CREATE INDEX commit_log_corpus_id_committed_at_idx ON public.commit_log USING btree (corpus_id, committed_at);

CREATE UNIQUE INDEX commit_log_idempotency_key ON public.commit_log USING btree (corpus_id, idempotency_key) WHERE (idempotency_key IS NOT NULL);

CREATE INDEX document_corpus_id_key_idx ON public.document USING btree (corpus_id, key);

CREATE INDEX document_corpus_id_touched_epoch_idx ON public.document USING btree (corpus_id, touched_epoch);

CREATE INDEX document_version_corpus_id_born_epoch_idx ON public.document_version USING btree (corpus_id, born_epoch);

CREATE INDEX document_version_corpus_id_key_version_idx ON public.document_version USING btree (corpus_id, key, version);

CREATE INDEX erasure_corpus_id_epoch_idx ON public.erasure USING btree (corpus_id, epoch);

CREATE INDEX erasure_pending ON public.erasure USING btree (corpus_id, id) WHERE (completed_at IS NULL);

ALTER TABLE ONLY public.erasure
    ADD CONSTRAINT erasure_corpus_id_fkey FOREIGN KEY (corpus_id) REFERENCES public.corpus(id);

ALTER TABLE ONLY public.index_generation
    ADD CONSTRAINT index_generation_corpus_id_fkey FOREIGN KEY (corpus_id) REFERENCES public.corpus(id);

ALTER TABLE ONLY public.pin
    ADD CONSTRAINT pin_corpus_id_fkey FOREIGN KEY (corpus_id) REFERENCES public.corpus(id);

ALTER TABLE ONLY public.reconciliation
    ADD CONSTRAINT reconciliation_corpus_id_fkey FOREIGN KEY (corpus_id) REFERENCES public.corpus(id);
