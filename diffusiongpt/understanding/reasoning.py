"""Whether a picture follows from what a prompt says only by thinking: rules, clues, steps, causes, sums, riddles.

On such prompts rewriting by an LLM gains most: Qwen-Image goes from 49 to 73 on the reasoning skills of T2I-CoReBench
(https://t2i-corebench.github.io/).
"""

from __future__ import annotations

import re

from diffusiongpt.understanding.caseless import Caseless

_SURE = Caseless(
    r"\b(?:solve|puzzle|riddle|equations?|clues?|infer(?:red|ring)?|deduce[ds]?|analog(?:y|"
    r"ies|ical|ous|ously)|observations|example \d"
    r"|rules? of (?:this|the|that)|transformation rules?|aftermath|initial state|initially|"
    r"outcome of|result of (?:this|the|these|following)"
    r"|(?:following|these) (?:\w+ )?(?:steps|actions|rules)|steps in order|step \d|"
    r"final (?:scene|state|result)|after (?:all|performing|applying|following)"
    r"|what (?:would|will) happen|as a result|in (?:this|a) (?:world|universe) where|"
    r"the rule\b|following this same|just as an?\b|square root|sum of|plus \d|minus \d"
    r"|(?:capital|inventor|founder|author|discoverer) of|national (?:animal|bird|flower|dish) of"
    r"|(?:twice|half|three times) the (?:number|size)|must (?:not )?(?:be|"
    r"have) the same .{1,30} as|logically|determined by)\b"
    r"|推理|谜题|谜语|线索|按照?以下步骤|步骤[一二三1-9]|规则[:：]|类比|方程|计算结果|之和|解出|如果.{1,20}(?:会|将|那么)|会发生什么|"
    r"最终(?:状态|结果)|首都的|的首都|发明者|国花|国鸟|初始状态"
)
_NUMBERED = re.compile(r"(?:^|[\s(;:])\(?([1-9])[.)]\s+\S")
_CALCULATED = re.compile(r"\d\s*[+×÷*/]\s*\d+\s*=\s*\?|\bwhat is \d+\s*[-+x*/×÷]", re.IGNORECASE)


def takes_reasoning(text: str) -> bool:
    """Whether a text has a sign of rules, steps, causes or riddles, or numbers its points."""
    points = {match[1] for match in _NUMBERED.finditer(text)}
    return bool(_SURE.search(text) or _CALCULATED.search(text)) or {"1", "2", "3"} <= points
