-- Gives the table that Prisma makes of a model `User` without `@@map` the names that the server expects. To be run once, before the
-- server's first start, while the Node server is stopped: psql -v ON_ERROR_STOP=1 "$DATABASE_URL" -f rename-prisma-table.sql
-- Rows and the foreign keys on the table stay. Where the model has @map for a column, delete the line of that column. Where it lacks
-- a column, write ADD COLUMN instead: image_url text, created_at timestamptz NOT NULL DEFAULT now(), and so on.
BEGIN;
ALTER TABLE "User" RENAME TO users;
ALTER TABLE users RENAME CONSTRAINT "User_pkey" TO users_pkey;
ALTER TABLE users RENAME COLUMN "imageUrl" TO image_url;
ALTER TABLE users RENAME COLUMN "createdAt" TO created_at;
ALTER TABLE users RENAME COLUMN "updatedAt" TO updated_at;
ALTER INDEX "User_email_key" RENAME TO users_email_key;
COMMIT;
