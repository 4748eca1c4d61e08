-- name: fx_spans
-- doc: Rate of a currency to the base currency from a day until before the next one; the base currency itself is 1.
-- key: currency, as_of
SELECT currency, as_of, lead(as_of) OVER (PARTITION BY currency ORDER BY as_of) AS until, rate_to_base
FROM fx_rates
WHERE currency <> '{base_currency}'
UNION ALL
SELECT '{base_currency}', CAST('1700-01-01' AS DATE), CAST(NULL AS DATE), 1.0
