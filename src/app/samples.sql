INSERT OR IGNORE INTO campaigns (id, name, description, theme_data) VALUES
  ('0190a5e0-0000-7000-8000-000000000001', 'Spring sale', 'Twenty per cent off', '{"color": "green", "banner": "spring.png"}'),
  ('0190a5e0-0000-7000-8000-000000000002', 'Back to school', NULL, '{"color": "blue"}'),
  ('0190a5e0-0000-7000-8000-000000000003', 'Winter clearance', 'Everything must go', NULL);
