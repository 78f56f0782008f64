"""How things are asked. `SEEN` is trained on; `UNSEEN` is for tests alone."""

from __future__ import annotations

import random
import re

from words import OTHER

SEEN_TEXT = {
    "expression": """What is {e}?|What is {e}?|What is {e}?|what's {e}?|whats {e}|{e}|{e}|{e}=|{e} = ?|{e}?|How much is {e}?
        Calculate {e}|Compute {e}.|Can you tell me what {e} is?|Tell me {e}|Solve {e}|What does {e} make?|What do you get for {e}?
        I need {e}|Do you know {e}?|What is the result of {e}?|Give me {e}|Work out {e}|Evaluate {e}|Please calculate {e}.
        {e} is what?|What would {e} be?|How about {e}?|And {e}?|Can you do {e}?|{e} please|Could you compute {e}?|{e} equals""",
    "add": """Add {a} and {b}|Add {a} to {b}.|What is the sum of {a} and {b}?|Sum of {a} and {b}|{a} and {b} together
        What do {a} and {b} make together?|Add up {a} and {b}|Add {a} {b}|sum {a} {b}|What is {a} and {b}?|Total of {a} and {b}?
        Can you add {a} and {b}?|How much is {a} added to {b}?|add {a}, {b}|Please add {a} and {b}|What do you get if you add {a} and {b}?""",
    "subtract": """Take {b} from {a}|Subtract {b} from {a}.|What is {a} take away {b}?|{a} less {b}|{a} minus {b}|{a} take away {b}
        How much is {a} without {b}?|What is left if I take {b} from {a}?|Can you subtract {b} from {a}?|Take {b} away from {a}
        What is {a} minus {b}?|Remove {b} from {a}|What remains of {a} after taking {b}?|Please subtract {b} from {a}""",
    "multiply": """Multiply {a} by {b}|Multiply {a} and {b}.|What is the product of {a} and {b}?|{a} times {b}|{a} multiplied by {b}
        Product of {a} and {b}|What is {a} multiplied by {b}?|Can you multiply {a} with {b}?|multiply {a} {b}|How much is {a} times {b}?""",
    "another": """What about {e}?|And {e}?|and {e}|How about {e}?|Then {e}?|what about {e}|{e}?|Now {e}|And what is {e}?|And what about {e}?
        ok and {e}|Next: {e}|Also {e}|Now what about {e}?|and how much is {e}|Now try {e}|And now {e}?|Another one: {e}""",
    "more": """Add {b} to that|add {b} to that|Add {b}|Plus {b}?|plus {b}|and plus {b}|+{b}|+ {b}|Now add {b}|Add {b} to it|and {b} more?
        Add {b} to the result|Add another {b}|What if I add {b}?|and add {b}|Now plus {b}|Add {b} more|Then add {b}|What is that plus {b}?
        that plus {b}|increase it by {b}|Add {b} to the answer|and if you add {b}?|put {b} on top|Can you add {b} to that?""",
    "fewer": """Subtract {b} from that|subtract {b}|Minus {b}?|minus {b}|and minus {b}|-{b}|- {b}|Now subtract {b}|Subtract {b} from it
        Take away {b}|take {b} away|Take {b} from that|and {b} less?|What if I take away {b}?|Then subtract {b}|What is that minus {b}?
        that minus {b}|decrease it by {b}|Now take away {b}|Subtract {b} from the result|less {b}|Can you take {b} from that?""",
    "times": """Times {b}?|times {b}|and times {b}|*{b}|x{b}|x {b}|* {b}|Multiply that by {b}|multiply by {b}|Now multiply by {b}
        Now times {b}|What is that times {b}?|that times {b}|Multiply it by {b}|Multiply the result by {b}|and multiplied by {b}?""",
    "double": """and doubled?|Double it|Double that|double|doubled?|Twice that?|and twice that|What is twice that?|Now double it|And doubled
        What is the double of that?|Can you double it?|double the result|Now doubled|and double?|and double that""",
    "triple": """and tripled?|Triple it|Triple that|triple|tripled?|Three times that?|Now triple it|And tripled|triple the result""",
    "gain": """I have {a} {t} and buy {b} more. How many {t} do I have?|I have {a} {t}. I get {b} more. How many now?
        There are {a} {t}. Then come {b} more {t}. How many are there?|If I have {a} {t} and find {b}, how many do I have?
        Tom gives me {b} {t}. I had {a} {t}. How many do I have?|I had {a} {t} and got {b} more. How many {t} have I got?""",
    "loss": """I have {a} {t} and lose {b}. How many {t} do I have?|I have {a} {t}. I eat {b}. How many are left?
        There are {a} {t}. I take {b} away. How many {t} are left?|If I have {a} {t} and give away {b}, how many do I have?
        I had {a} {t} and sold {b}. How many {t} are left?|I have {a} {t} and {b} break. How many {t} remain?""",
    "bigger": """Which is bigger, {a} or {b}?|Which is larger, {a} or {b}?|What is bigger: {a} or {b}?|bigger: {a} or {b}|{a} or {b}, which is bigger?
        Which number is greater, {a} or {b}?|What is more, {a} or {b}?|larger {a} or {b}?|which is more {a} or {b}|Compare {a} and {b}""",
    "smaller": """Which is smaller, {a} or {b}?|What is smaller: {a} or {b}?|smaller: {a} or {b}|{a} or {b}, which is smaller?|Which is less, {a} or {b}?
        Which number is smaller, {a} or {b}?|What is less, {a} or {b}?|which is lower {a} or {b}""",
    "is_bigger": """Is {a} bigger than {b}?|Is {a} more than {b}?|Is {a} larger than {b}?|Is {a} greater than {b}?|{a} > {b}?|{a}>{b}|is {a} > {b}
        Is {a} above {b}?""",
    "is_smaller": """Is {a} smaller than {b}?|Is {a} less than {b}?|Is {a} lower than {b}?|{a} < {b}?|{a}<{b}|is {a} < {b}|Is {a} below {b}?""",
    "parity": """Is {n} even?|Is {n} odd?|Is {n} even or odd?|Is {n} an even number?|Is {n} an odd number?|{n} even or odd?|even or odd: {n}""",
    "biggest": """Which is the biggest of {l}?|What is the largest of {l}?|biggest of {l}|max of {l}|Which is the biggest: {l}?|What is the maximum of {l}?
        Find the largest of {l}|the biggest number of {l}|Which number is the largest, {l}?""",
    "smallest": """Which is the smallest of {l}?|What is the smallest of {l}?|smallest of {l}|min of {l}|Which is the smallest: {l}?|the lowest of {l}
        What is the minimum of {l}?|Find the smallest of {l}""",
    "sort": """Sort {l}|Sort these: {l}|sort {l}|Please sort {l}.|Put {l} in order|Order {l}|Sort the list {l}|Can you sort {l}?|Arrange {l}
        Sort from small to big: {l}|sort: {l}|Sort {l} for me|put these in order: {l}|Sort the numbers {l}|sort ascending {l}""",
    "sort_down": """Sort {l} descending|Sort {l} from big to small|Sort {l} backwards|Sort downwards: {l}|Sort {l} in descending order
        Sort from biggest to smallest: {l}|sort descending {l}""",
    "other_way": """the other way round|Now the other way round|And backwards?|Now in reverse|reverse the list|and in reverse order?|Now reverse it
        Now descending|And from the end?|turn it around|reverse it""",
    "spell": """Spell {w}|spell {w}|How do you spell {w}?|Spell the word {w}|Can you spell {w}?|Please spell {w}.|Spell {w} for me|spell: {w}
        What are the letters of {w}?|how is {w} spelled?|Spell out {w}|Spell "{w}"|the spelling of {w}""",
    "reverse": """Reverse {w}|reverse {w}|Reverse the word {w}|What is {w} backwards?|{w} backwards|Say {w} backwards|Spell {w} backwards|write {w} backwards
        Can you reverse {w}?|Turn {w} around|What is {w} reversed?|reverse: {w}|Please reverse {w}.|{w} in reverse|Reverse "{w}"|What is {w} in reverse?""",
    "letters": """How many letters are in {w}?|How many letters does {w} have?|Count the letters in {w}|how many letters has {w}|How long is the word {w}?
        letters in {w}|count the letters of {w}|Number of letters in {w}?|How many letters in {w}?|How many letters are in the word {w}?""",
    "one_letter": """How many {c} are in {w}?|How many {c}s are in {w}?|How many {c}'s are in {w}?|Count the letter {c} in {w}|How often is {c} in {w}?
        How many times is {c} in {w}?|how many {c} in {w}|Count {c} in {w}|how many {c}'s in {w}""",
    "again_reverse": """and backwards?|Now backwards|backwards|Now reverse it|reverse it|And in reverse?|reverse that word|Turn it around|and reversed""",
    "again_spell": """Spell it|and spelled?|Now spell it|spell that|spell it please|Can you spell it?|Spell that word""",
    "again_letters": """How many letters?|How many letters does it have?|count its letters|how many letters are in it|And how many letters?""",
    "count": """Count from {a} to {b}|count {a} to {b}|Can you count from {a} to {b}?|Please count from {a} to {b}.|count from {a} up to {b}
        Start at {a} and count to {b}|numbers from {a} to {b}|List the numbers from {a} to {b}""",
    "count_to": """Count to {b}|count to {b}|Can you count to {b}?|Count from 1 to {b}|Please count to {b}.|Count up to {b}|count from {a} to {b}""",
    "count_down": """Count down from {a} to {b}|count down {a} to {b}|Count backwards from {a} to {b}|Count from {a} down to {b}|Count from {a} to {b}
        Can you count down from {a} to {b}?|count {a} to {b}""",
    "after": """What comes after {n}?|what is after {n}|Which number comes after {n}?|next after {n}|What is the next number after {n}?|after {n}?
        Which number follows {n}?|the number after {n}|What follows {n}?""",
    "before": """What comes before {n}?|what is before {n}|Which number comes before {n}?|What is the number before {n}?|before {n}?|the number before {n}""",
    "tell_name": """My name is {v}|My name is {v}.|I am {v}|I'm {v}|I'm {v}.|Call me {v}|Hi, I am {v}|Hello, I'm {v}!|Hello! My name is {v}.|my name is {v}
        Hi, my name is {v}|You can call me {v}|Hey, I am {v}.|This is {v}|Please call me {v}|they call me {v}|name's {v}""",
    "tell_favorite": """My favorite {k} is {v}|My favourite {k} is {v}.|my favorite {k} is {v}|Remember that my favorite {k} is {v}|I like {v}, it is my favorite {k}
        The {k} I like best is {v}|{v} is my favorite {k}|{v} is my favourite {k}.|my favourite {k} is {v}""",
    "tell_number": """Remember the number {v}|remember {v}|Please remember the number {v}.|Keep the number {v} in mind|My number is {v}|The number is {v}
        Can you remember {v}?|Remember this number: {v}|memorize {v}|Don't forget the number {v}""",
    "tell_age": """I am {v} years old|I'm {v} years old.|I am {v}|My age is {v}|I'm {v}|i am {v} years""",
    "tell_town": """I live in {v}|I live in {v}.|I'm from {v}|I am from {v}|I come from {v}|My home is {v}|My home is in {v}|I live at {v}|my city is {v}""",
    "mood": """I am {v}|I'm {v}|I feel {v}|I am so {v}|i am very {v}|I'm {v} today|feeling {v}""",
    "recall_name": """What is my name?|what's my name?|whats my name|Do you know my name?|Who am I?|Do you remember my name?|my name?|What was my name?|who am i
        Can you tell me my name?|Tell me my name|What did I say my name was?|Say my name""",
    "recall_favorite": """What is my favorite {k}?|What's my favourite {k}?|whats my favorite {k}|Do you remember my favorite {k}?|my favorite {k}?
        Which {k} do I like best?|What was my favorite {k}?|Tell me my favourite {k}|Which is my favorite {k}?|What {k} do I like?""",
    "recall_number": """What was the number?|Which number did I tell you?|what is the number|What number did I say?|What is my number?|the number?
        Do you remember the number?|Which number should you remember?|What was my number?|Tell me the number""",
    "recall_age": """How old am I?|how old am i|What is my age?|Do you know how old I am?|Do you remember my age?|my age?|Tell me my age""",
    "recall_town": """Where do I live?|where do i live|Where am I from?|Do you know where I live?|Where is my home?|Which city do I live in?|what is my city?""",
    "result": """What was the last result?|What was the answer?|what did you get|What was that again?|say that again|the result again|What is the result?
        repeat the answer|What was it?|Repeat that""",
    "greet": """Hi|Hello|Hey|hello there|Hi there|hi|hello|Hey there!|Hello!|Hi!|Howdy|Greetings|Hello Trit|Hi Trit!|hey trit|yo|Hi bot|hiya|Hallo
        hello world|Good day|Welcome|hi friend|heya|hello again|hey you|Hello my friend|Are you there?|anybody there?|knock knock|test|sup""",
    "morning": """Good morning|good morning!|Good morning Trit|morning|Morning!|A good morning to you""",
    "evening": """Good evening|good evening!|Good evening, Trit|evening""",
    "how_are_you": """How are you?|how are you|How are you doing?|How do you do?|How's it going?|what's up?|whats up|How are you today?|Are you well?
        how are things?|How do you feel?|how r u|Are you ok?|How is it going?|are you happy?|you good?|How are you feeling?|Hi, how are you?|Hello, how are you?""",
    "thanks": """Thanks|thanks|Thank you|thank you!|Thanks a lot|Thank you very much|thx|Many thanks|thank you so much|Thanks!|ty|Thanks for your help|cheers
        thanks, Trit|Thank you, that helps|ok thanks|great, thanks|thanks, that's all""",
    "bye": """Bye|bye|Goodbye|Good bye|See you|see you later|Bye bye|Good night|I have to go|farewell|cya|Take care|quit|exit|Until tomorrow
        bye, Trit|see ya|ok bye|Talk to you later|I am leaving|good night!|thanks, bye""",
    "praise": """Good job|Well done|Great|great!|Good|Nice|nice one|Very good|You are good|You are smart|Excellent|Perfect|Wow|wow!|cool|Cool!|awesome
        That's right|That is right|Correct|correct!|right|Bravo|amazing|You are great|I like you|love it|good bot|that is correct|impressive|fantastic""",
    "okay": """OK|ok|okay|Okay.|alright|All right|fine|sure|yes|no|Yes|No|I see|hm|hmm|got it|understood|yeah|nope|yep|maybe|never mind|please|and?
        so?|oh|aha|ah|k|let's go|go on|next|I don't know|Ok then""",
    "wrong": """That's wrong|That is wrong|wrong|No, that is wrong|You are wrong|That is not right|incorrect|That's not correct|no, wrong|You made a mistake
        bad bot|You are stupid|that is false|This is wrong|you're wrong|That can't be right|not true""",
    "sure": """Are you sure?|are you sure|Really?|really|Is that right?|Is that correct?|Is that true?|sure?|Are you certain?|Do you make mistakes?
        Can I trust you?|for real?|Can you be wrong?|Are you always right?""",
    "who": """Who are you?|who are you|What are you?|What is your name?|what's your name?|whats your name|your name?|Introduce yourself|Tell me about yourself
        And who are you?|Do you have a name?|What should I call you?|who r u|What kind of model are you?|Which model are you?|what model is this?
        What is Trit?|Who is Trit?|Who am I talking to?|and you?|What do I call you?|How are you called?|Are you Trit?|name?""",
    "maker": """Who made you?|who made you|Who created you?|Who trained you?|Who built you?|Where do you come from?|How were you made?|How were you trained?
        Who is your maker?|who programmed you?|Who wrote you?|Who developed you?|What were you trained on?|who is your father?""",
    "size": """How big are you?|how big are you|How many parameters do you have?|What is your size?|How large are you?|How many weights do you have?|parameters?
        Are you big?|Are you small?|how many parameters|What size are you?|How small are you?""",
    "home": """Where do you live?|where do you live|Where are you?|Where do you run?|Are you online?|Do you need the internet?|Are you in the cloud?|where are you from
        Do you run on my computer?|Do you send my data?|Where is your home?""",
    "human": """Are you human?|Are you a human?|Are you a robot?|Are you real?|Are you ChatGPT?|are you gpt|Are you alive?|Are you a person?|Are you an AI?
        Are you Siri?|are you a bot?|Are you a computer?|are you conscious?|How old are you?|Do you sleep?|Do you eat?|Are you a man or a woman?|Do you have feelings?
        Do you dream?""",
    "able": """What can you do?|what can you do|Help|help|What do you know?|How can you help me?|What can I ask you?|help me|Can you help me?|?|What are you good at?
        What else can you do?|what should I ask?|Show me what you can do|What are your skills?|How does this work?|What can I do here?|tell me what you can do
        What do you do?|commands|menu|Can you do math?|Can you calculate?|Can you count?|Can you spell?|Can you sort?|Can you add?|Can you help me with math?
        do some math|Let's do math|What are you for?|I need help|what are you able to do|i want to calculate something""",
    "unable": """What can't you do?|What can you not do?|what don't you know?|Do you know everything?|What are your limits?|Do you know the world?|are you smart?
        Are you clever?|How smart are you?|Do you know anything?|What are you bad at?""",
    "divide": """What is {n} divided by {m}?|{n}/{m}|{n} / {m}|{n} ÷ {m}|Divide {n} by {m}|divide that by {m}|and halved?|Half of that?|half it|What is half of {n}?
        divided by {m}|Can you divide?|{n} over {m}|What is {n}/{m}?|divide it by {m}|what is a third of {n}|split {n} by {m}|/{m}|and half of that?|{n} : {m}""",
    "decimal": """What is {f} + {n}?|{f}+{n}|{n} + {f}|{f} times {m}|{n}-{f}|What is {f}*{m}?|{f} + {f}|Add {f} and {n}|What about {f} + {m}?|How much is {f} minus {n}?""",
}

UNSEEN_TEXT = {
    "expression": "Hey, do you happen to know what {e} is?|{e}, how much is it?|So what is {e} then?|I wonder what {e} is",
    "add": "Put {a} and {b} together|If I add {a} and {b} what do I get?|I would like to add {a} and {b}",
    "subtract": "If I subtract {b} from {a} what do I get?|I would like to subtract {b} from {a}|how much is {a} take away {b}",
    "multiply": "If I multiply {a} by {b} what do I get?|I would like to multiply {a} by {b}|how much is {a} multiplied by {b}",
    "another": "Fine, and what is {e}?|And if it is {e}?|Can you also do {e}?",
    "more": "Could you add {b} to it?|Now what if you add {b}|and then plus {b}",
    "fewer": "Could you subtract {b} from it?|Now what if you take away {b}|and then minus {b}",
    "times": "Could you multiply that by {b}?|and then times {b}",
    "double": "Please double that|and what is the double?",
    "triple": "Please triple that|and then triple it",
    "bigger": "Tell me which is bigger, {a} or {b}|Of {a} and {b}, which is the bigger one?",
    "smaller": "Tell me which is smaller, {a} or {b}|Of {a} and {b}, which is the smaller one?",
    "is_bigger": "Do you think {a} is bigger than {b}?|would you say {a} is more than {b}",
    "is_smaller": "Do you think {a} is smaller than {b}?|would you say {a} is less than {b}",
    "spell": "Tell me how to spell {w}|I want you to spell {w}",
    "reverse": "Tell me {w} backwards|I want you to reverse {w}",
    "letters": "Tell me how many letters {w} has|Can you count the letters in {w}?",
    "sort": "Could you put {l} in order?|I want you to sort {l}",
    "count": "I want you to count from {a} to {b}|Tell me the numbers from {a} to {b}",
    "tell_name": "Well, my name is {v}|Hey, you can call me {v}",
    "recall_name": "So what is my name?|Hey, do you still know my name?",
    "other": "Can you tell me a story about {t}?|I need information about {t}|Is there a {t} in {u}?|Who was the first {t}?|What do you know about {t}?",
}


def split(text: str) -> list[str]:
    """The wordings of an entry."""
    return [wording.strip() for wording in re.split(r"\||\n", text)]


SEEN = {skill: split(text) for skill, text in SEEN_TEXT.items()} | {"other": OTHER}
UNSEEN = {skill: split(text) for skill, text in UNSEEN_TEXT.items()}

OPENERS = ["Hi, ", "OK, ", "ok ", "Now ", "So ", "Hey, ", "Please ", "And ", "and ", "Well, ", "Hello! ", "then ", "Trit, ", "um "]


def careless(rng: random.Random, wording: str) -> str:
    """The wording as somebody may type it: case, punctuation, politeness, slips of the finger."""
    if rng.random() < 0.5:
        return wording
    if rng.random() < 0.12 and len(wording) > 6:
        opener = rng.choice(OPENERS)
        wording = opener + (wording[0].lower() + wording[1:] if not wording.startswith(("I ", "I'")) else wording)
    if rng.random() < 0.06 and len(wording) > 6:
        wording = wording.rstrip("?.!") + rng.choice([" please", ", please", " please?", " for me", " now", " then"])
    if rng.random() < 0.5:
        wording = re.sub(r"(^|[\s\"])([A-Z])", lambda m: m[1] + m[2].lower(), wording)
    elif rng.random() < 0.03:
        wording = re.sub(r"[a-z]+(?![^{]*})", lambda m: m[0].upper(), wording)
    if rng.random() < 0.35:
        wording = wording.rstrip("?.!")
    elif rng.random() < 0.15:
        wording = wording.rstrip("?.!") + rng.choice(["?", "!", " ?", "??", ".", "...", "?!"])
    if rng.random() < 0.2:
        wording = wording.replace("'", "")
    if rng.random() < 0.12:
        words = wording.split(" ")
        i = rng.randrange(len(words))
        words[i] = slip(rng, words[i])
        wording = " ".join(words)
    return wording


def slip(rng: random.Random, word: str) -> str:
    """A word with two letters exchanged, one left out or one doubled."""
    if len(word) < 4 or "{" in word:
        return word
    i = rng.randrange(len(word) - 1)
    return rng.choice([word[:i] + word[i + 1] + word[i] + word[i + 2 :], word[:i] + word[i + 1 :], word[:i] + word[i] + word[i:]])
