-- name: order_revenue
-- doc: Order lines with their team, product family and revenue in the base currency ({base_currency}); refunds are negative, a currency without a rate gives null.
-- key: order_id
SELECT o.order_id, o.event_time, o.deal_id, o.account_id, o.rep_id, t.team_id, t.region, o.product_id, p.family, o.quantity, o.amount,
       o.currency, o.kind,
       CASE WHEN o.kind = 'refund' THEN -1.0 ELSE 1.0 END * CAST(o.amount AS DOUBLE) * fx.rate_to_base AS revenue_base
FROM orders o
LEFT JOIN products p ON p.product_id = o.product_id
LEFT JOIN rep_teams t ON t.rep_id = o.rep_id AND t.span_start <= o.event_time AND o.event_time < t.span_end
LEFT JOIN fx_spans fx
  ON fx.currency = o.currency
 AND fx.as_of <= local_date(o.event_time, 'UTC')
 AND (fx.until IS NULL OR local_date(o.event_time, 'UTC') < fx.until)
