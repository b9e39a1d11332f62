"""Strategies: what decides how much of each symbol to hold, without knowing of orders, accounts or storage.

`spec`: what a rule is. `registry`: all rules by name. `rules/`: ours, a module a family. `custom`: a user's own
function as a rule. `bots`: strategies that decide bar by bar. `signals`: targets as buy, sell and hold, with reasons.
`truncation`: whether a rule reads later bars.
"""
