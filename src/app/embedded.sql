CREATE TABLE IF NOT EXISTS campaigns (
  id UUID PRIMARY KEY NOT NULL,
  name TEXT NOT NULL,
  description TEXT,
  theme_data JSONB,
  created_at TIMESTAMPTZ NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f', 'now') || '000Z'),
  updated_at TIMESTAMPTZ NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f', 'now') || '000Z')
);
