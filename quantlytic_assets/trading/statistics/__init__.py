"""Statistics of returns and of accounts, by their usual definitions.

`returns`: from prices to returns and back, annual return. `risk`: volatility, drawdown, value at risk. `ratios`:
Sharpe, Sortino, Calmar, Omega. `benchmark`: alpha, beta, captures. `rolling`: the same over windows. `extremes`:
tails by the generalised Pareto distribution. `account`: trades, turnover, exposure, drawdowns, months.

Everything that takes returns takes a float array of simple returns a period, oldest first: one account as [periods],
or several as [periods, accounts], in which case it gives one figure an account. A NaN is a period without a figure: it
counts as no change where returns are compounded, and is left out of means and deviations. `periods` is how many
periods make a year (`returns.PERIODS`). A figure that is not defined is NaN. The definitions are those of empyrical,
whose recorded results the tests hold these functions to.
"""
