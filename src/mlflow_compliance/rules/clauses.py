"""What the clauses ask for that rules may give evidence for, in our own words: to find one's way, not to rely on."""

from __future__ import annotations

from collections.abc import Mapping

CLAUSES: Mapping[str, str] = {
    "EU AI Act Art. 11": "technical documentation is there before a high-risk system is used, and kept up to date",
    "EU AI Act Annex IV §2": "how the system was made: methods, design, data, how it was tested and with which results",
    "EU AI Act Annex IV §6": "what was changed in the system during its life",
    "EU AI Act Art. 12": "events are recorded over the life of the system, so that its workings can be traced",
    "EU AI Act Art. 17": "quality management: procedures for development, tests, data and records, and who answers",
    "EU AI Act Art. 18": "the documentation is kept for ten years after the system came on the market or into service",
    "SR 26-2 model inventory": "which models there are, what state each is in and what depends on it",
    "SR 26-2 development and use": "models are developed, tested, documented and used as they were meant to be",
    "SR 26-2 validation and monitoring": "models are checked against outcomes, and watched while they are in use",
    "SR 26-2 governance and controls": "roles, policies and controls by which models are changed, kept and retired",
    "ISO/IEC 42001 A.6.2.3": "design and development of the AI system are documented",
    "ISO/IEC 42001 A.6.2.4": "the AI system is verified and validated by measures that are written down",
    "ISO/IEC 42001 A.6.2.5": "the AI system is deployed by a plan, when what was asked for is met",
    "ISO/IEC 42001 A.6.2.6": "the AI system is operated, watched, repaired and updated in a defined way",
    "ISO/IEC 42001 A.6.2.7": "technical documentation is there for those who need it",
    "ISO/IEC 42001 A.6.2.8": "logs of events are kept over the phases of the life cycle",
    "ISO/IEC 42001 A.7.5": "where the data of the AI system come from is recorded, over their life and its own",
    "NIST AI RMF GOVERN 1.6": "AI systems are in an inventory that is looked after",
    "NIST AI RMF MEASURE 2.1": "test sets, metrics and the tools of an evaluation are documented",
    "NIST AI RMF MEASURE 2.3": "performance is measured and shown for conditions like those of deployment",
    "NIST AI RMF MEASURE 2.4": "function and behaviour of the system are watched in production",
    "NIST AI RMF MEASURE 2.5": "the system is shown to be valid and reliable, with its limits documented",
    "NIST AI RMF MEASURE 2.7": "security and resilience are evaluated and documented",
    "NIST AI RMF MEASURE 2.8": "what stands against transparency and accountability is examined and documented",
}
"""SR 26-2 has no numbered sections: these are the parts that it speaks of. It is about models of banks, and leaves
generative AI out. `MEASURE` is the function of NIST AI 100-1.
"""
EVIDENCE = "A check that passes is evidence about one store at one time; it is not a statement of compliance."
