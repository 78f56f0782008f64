"""Words to fill wordings with: what is spelled, remembered and asked about."""

NAMES = """Anna Ben Carla David Emma Felix Greta Henry Ida Jack Kate Liam Mia Noah Olga Paul Quinn Rosa Sam Tina Uma Victor
Wendy Xenia Yusuf Zoe Adam Bella Chris Dana Eric Fatima George Hannah Ivan Julia Kevin Laura Marco Nina Oscar Petra Ravi
Sara Tom Ursula Vera Walter Yara Zack Alice Bob Clara Dennis Elena Frank Gina Hugo Irene John Karl Lena Max Nora Otto Priya
Ralf Simon Theo Ulla Wei Alan Beth Cora Dora Ella Fred Gus Helen Isaac Jane Kim Leo Maria Nick Omar Pia Rita Steve Tara Abby
Boris Chloe Diego Eve Finn Gloria Hans Ines Jonas Klara Lucas Martha Nadia Olivia Peter Robin Sofia Timo Viktor Will Amir
Bruno Carmen Dimitri Edith Fiona Gavin Heidi Igor Jasmin Ken Lily Mohammed Nils Pablo Ruth Stella Thomas Alex Mary""".split()

WORDS = """cat dog sun moon star tree fish bird frog bear lion wolf horse mouse snake tiger zebra apple banana cherry grape
lemon mango orange peach pear plum bread butter cheese honey sugar salt pepper water milk coffee tea juice soup rice pasta
pizza cake candy cookie table chair door window house garden street bridge river ocean lake island mountain valley forest
desert beach sand stone rock metal iron gold silver copper paper pencil book letter story music song dance paint picture
color red blue green yellow purple black white brown pink gray small large long short tall wide thin thick heavy light
dark bright cold warm hot cool soft hard fast slow early late happy sad angry brave calm clever kind quiet loud proud
head hand foot arm leg eye ear nose mouth heart bone skin hair tooth finger knee shoulder brother sister mother father
uncle aunt baby child friend king queen prince doctor nurse farmer baker pilot sailor soldier teacher student artist
winter spring summer autumn monday tuesday friday sunday january march april june july august october train plane ship boat
truck bus bicycle wheel engine motor ticket station airport hotel market shop school church tower castle palace village
city country planet rocket robot computer keyboard screen button camera phone radio clock watch mirror lamp candle fire
smoke cloud rain snow storm wind thunder rainbow flower rose tulip grass leaf root seed branch wood berry potato tomato
carrot onion garlic bean corn salad egg meat bacon chicken turkey duck goose sheep goat cow pig rabbit hamster spider
beetle butterfly dragon monkey elephant giraffe kangaroo panda parrot penguin dolphin whale shark turtle crab shirt jacket
trouser sock shoe boot glove scarf hat belt pocket ring necklace purse bag box bottle glass cup plate bowl fork knife
spoon blanket pillow carpet curtain ladder hammer nail screw rope chain magnet basket bucket broom brush soap towel
football tennis hockey chess puzzle game ball kite drum guitar piano violin flute trumpet circle square line point
strawberry blueberry pineapple coconut chocolate sandwich breakfast dinner language sentence question answer secret
treasure journey holiday birthday present party wedding museum library hospital kitchen bedroom bathroom""".split()

# Words of the vocabulary: one token each, so their letters have to be learned by heart to be spelled.
WHOLE = """what is the and how many much add subtract multiply plus minus times count sort reverse spell backwards order
number word letters name favorite remember hello thanks please you can my your that sum bigger smaller more less than which
from down with tell give calculate result list one two three four five six seven eight nine ten""".split()

KINDS = "color food animal fruit drink city sport game song book season day number word toy country".split()

FEELINGS = "tired happy sad hungry fine good bored cold sick ready busy here back well great okay late".split()

THINGS = "apples books coins eggs cookies cards stamps pens dogs cats balls toys cakes stones shells marbles".split()

# Off the subject: {t} is any word.
OTHER = """Write a poem about {t}|Write me a story about a {t}|Tell me a joke|Tell me a joke about {t}|Who won the world cup?
What is the capital of {t}?|What is the weather like in {t}?|Why is the {t} blue?|What is a {t}?|What does {t} mean?
Translate {t} into French|How do I cook {t}?|Give me a recipe for {t}|Who invented the {t}?|When was {t} born?|Who is {t}?
Who is the president of {t}?|Explain {t} to me|Explain quantum {t}|Write a program that prints {t}|Write python code for {t}
What is the meaning of life?|Sing a song about {t}|Draw a {t}|Play some {t}|Open the {t}|Where is {t}?|How far is {t}?
What time is it?|What day is it today?|Book a flight to {t}|Send an email to {t}|What do you think about {t}?|Find me a {t}
How tall is {t}?|Should I buy a {t}?|What is the best {t}?|Summarize this text about {t}|What happened in {t}?|I love {t}
Do you know {t}?|Have you seen the {t}?|What rhymes with {t}?|How does a {t} work?|Search for {t}|Show me a picture of {t}
What is the news about {t}?|Name three kinds of {t}|Compare {t} and {u}|Can a {t} eat a {u}?|Is {t} better than {u}?
What is the square root of {n}?|What is {n} percent of {m}?|Solve x + {n} = {m}|What is {n} to the power of {m}?|{t}|{t} {u}
Convert {n} miles to {t}|Give me a random number|Is {n} a prime number?|What is the {t} of {n}?|Let us talk about {t}
Help me with my {t}|Fix my {t}|Make me a {t}|I want a {t}|Recommend a {t}|How old is the {t}?|What color is a {t}?
Who wrote {t}?|Teach me {t}|Talk about {t}|Define {t}|How much does a {t} cost?|What is your opinion on {t}?|Why {t}?
The {t} is {u}|My {t} has a {u}|We went to the {t}|There is a {t} in the {u}|Set an alarm for {n}|Turn off the {t}
Do you like {t}?|Can you see my {t}?|Can you {t}?|Describe a {t}|What sound does a {t} make?|How do you make a {t}?
What is the population of {t}?|How many people live in {t}?|How many legs does a {t} have?|Who lives in {t}?""".replace(
    "\n", "|"
).split("|")
