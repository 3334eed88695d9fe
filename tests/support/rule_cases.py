"""The hand-written uses of all operators."""

import rule_cases_control
import rule_cases_functions
import rule_cases_moving
import rule_cases_parameters
import rule_cases_pointwise
import rule_cases_recurrent
import rule_cases_sampling
import rule_cases_scatter
import rule_cases_spatial
import rule_cases_spectral
from rule_harness import Case

CASES: list[Case] = [
    *rule_cases_pointwise.CASES,
    *rule_cases_functions.CASES,
    *rule_cases_moving.CASES,
    *rule_cases_scatter.CASES,
    *rule_cases_parameters.CASES,
    *rule_cases_spatial.CASES,
    *rule_cases_sampling.CASES,
    *rule_cases_spectral.CASES,
    *rule_cases_recurrent.CASES,
    *rule_cases_control.CASES,
]
