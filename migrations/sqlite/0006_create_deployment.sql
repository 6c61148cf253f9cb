-- One row: the id of the blob store that belongs to this database, which has an object of that name.
CREATE TABLE deployment (
    only_row       BIGINT PRIMARY KEY NOT NULL CHECK (only_row = 1),
    blob_store_id  BLOB NOT NULL
);
