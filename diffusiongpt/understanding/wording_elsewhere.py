"""How a request is worded in Japanese, Korean, Russian, Arabic, German and the Romance languages."""

from __future__ import annotations

import re

from diffusiongpt.flow import Paradigm

_PICTURE = (
    r"(?:(?:ein(?:e|en)? (?:bild|foto)|une image|un dessin|una imagen|un dibujo|un['’]?immagine|uma imagem|"
    r"картинку|рисунок|"
    r"изображение)\s+(?:von|mit|de|d['’]|di|с)\s*)?"
)
_Patterns = tuple[tuple[Paradigm, re.Pattern[str]], ...]

_VERB_FIRST: _Patterns = (
    (
        "hypothesis",  # "falls" and "Si" are nouns in English, so that their sentence must begin behind them
        re.compile(
            r"(?:wenn|falls(?=\s+(?:ich|du|er|sie|es|wir|ihr|man|eine?|der|die|das|alle|jemand)\b)|"
            r"si(?=\s+(?:[jlc]['’]|(?:je|tu|il|elle|on|nous|vous|ils|elles|une?|le|la|les|mon|ma|mes|tous|toutes|cette|yo|él|ella"
            r"|el|los|las|una|mi|todos|todas|no|hubiera|fuera|pudiera|tuviera|existiera)\b))|"
            r"se fosse|se io|если(?: бы)?|لو)\s+(?P<content>\S.+)$",
            re.IGNORECASE | re.DOTALL,
        ),
    ),
    (
        "inspiration",
        re.compile(
            r"(?:ich (?:möchte|hätte gern[e]?|wünsche mir)|"
            r"je (?:veux|voudrais|souhaite)|j['’]aimerais|quiero(?: ver)?|"
            r"me gustaría(?: ver)?|vorrei|voglio|quero|gostaria de|"
            rf"хочу(?: увидеть)?|хотелось бы)\s+{_PICTURE}(?P<content>\S.+)$",
            re.IGNORECASE | re.DOTALL,
        ),
    ),
    (
        "instruction",
        re.compile(
            r"(?:(?:bitte|por favor|s['’]il (?:te|vous) plaît|per favore|пожалуйста)[\s,]+)?"
            r"(?:zeichne|male(?= (?:mir|eine?n?)\b)|erstelle|generiere|"
            r"dessine[rz]?|peins|crée[rz]?|génère[rz]?|dibuja(?:me)?|dibújame|pinta(?:me)?|crea(?:me)?|créame|genera|haz(?:me)?|"
            r"disegna(?:mi)?|dipingi|desenh[ae]|crie|gere|нарисуй(?:те)?|создай(?:те)?|сгенерируй(?:те)?|изобрази|ارسم|أنشئ|صمم)"
            rf"(?:[- ](?:mir|moi|nous|me|mi|мне|لي))?\s*[:,]?\s+{_PICTURE}(?P<content>\S.+)$",
            re.IGNORECASE | re.DOTALL,
        ),
    ),
)
_VERB_LAST: _Patterns = (
    ("hypothesis", re.compile(r"(?:もし|만약)[\s、]*(?P<content>\S.+)$", re.DOTALL)),
    (
        "inspiration",
        re.compile(
            r"(?P<japanese>.+?)が(?:見たい|欲しい|ほしい)(?:です)?$"
            r"|(?P<korean>.+?)[을를이가]?\s*(?:보고 싶|원해|갖고 싶).*$",
            re.DOTALL,
        ),
    ),
    (
        "instruction",
        re.compile(
            r"(?P<japanese>.+?)(?:の(?:絵|画像|イラスト))?を(?:描い|書い|作っ|生成し|作成し|デザインし)"
            r"て(?:ください|下さい|ほしい|欲しい|くれ|ね)*$"
            r"|(?P<korean>.+?)[을를]?\s*(?:그려|만들어|생성해)\s*(?:줘|주세요|줄래)(?:요)?$",
            re.DOTALL,
        ),
    ),
)
_KANA_OR_HANGUL = re.compile("[\u3041-\u30fa\uac00-\ud7af]")
"""Letters of the languages whose verb comes last."""

CHANGES_ELSEWHERE = re.compile(
    r"^\s*(?:(?:por favor|bitte|s['’]il te plaît|per favore|пожалуйста)[\s,]+)?(?:"
    r"(?:cambia|quita|elimina|borra|añade|agrega|reemplaza|sustituye|convierte|pon)(?:le)?\s+(?:el|la|los|las|un|una|est[ea])"
    r"|(?:change|enlève|supprime|efface|ajoute|remplace|transforme|mets|rends)\s+(?:les?|la|une?|cette|ce|lui)"
    r"|(?:enlève|supprime|efface|remplace|change)\s+l['’]"
    r"|(?:ersetze|entferne|lösche|ändere|verwandle|tausche|mache?|färbe)\s+(?:den|die|das|dem|diese[snm]?)"
    r"|(?:togli|rimuovi|aggiungi|sostituisci|trasforma|metti|cambia)\s+(?:il|lo|la|i|gli|le|una?|quest[oa])"
    r"|(?:mude|remova|tire|apague|adicione|substitua|transforme|coloque)\s+(?:os?|as?|uma?|est[ea])"
    r"|(?:убери|удали|замени|добавь|измени|преврати|сотри|перекрась))\b\s*(?P<changed>[^.,;]{0,40})"
    r"|^(?P<japanese>[^。、を]{1,20})を[^。]{0,16}?(?:に(?:して|[変变]えて|[変变]更)|消して|取り?除いて|外して|足して|加えて|追加して|"
    r"付けて|つけて|入れ替えて|明るくして|暗くして)(?!い[るた])"
    r"|(?P<korean>[^.]{1,20}?)[을를]\s*[^.]{0,20}?(?:바꿔|지워|없애|제거해|추가해|변경해)\s*(?:줘|주세요|줄래)?[.!?]?\s*$",
    re.IGNORECASE,
)
"""Orders to change something in other languages: a verb of changing and a thing that is there already."""


def wording_elsewhere(text: str) -> tuple[Paradigm, str] | None:
    """The paradigm of a request in these languages, and what it asks for; `None` for a plain description."""
    for paradigm, pattern in _VERB_LAST if _KANA_OR_HANGUL.search(text) else _VERB_FIRST:
        if match := pattern.match(text):
            content = next(filter(None, match.groups()), "").strip()
            if content:
                return paradigm, content
    return None
