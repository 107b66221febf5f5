"""The fixed word lists demo values are drawn from. It does not know how words become tokens or prompts.

Every word is one run of ASCII letters, so that the tokenizer cuts it the same way in a prompt and in an answer.
"""


def _words(text: str) -> list[str]:
    return text.split()


FIRST_NAMES = _words(
    "Mara Jonas Priya Tomas Elena Viktor Aisha Nadia Oscar Lucia Felix Ingrid Hugo Amara Pavel Sofia Diego Yuki "
    "Leon Freya Omar Clara Mateo Hanna Kenji Rosa Emil Zara Anton Leila Bruno Greta Samir Nora Luca Maya Ivan Tessa "
    "Rafael Selma Arjun Petra Noah Dalia Marco Wanda Elias Carmen"
)

LAST_NAMES = _words(
    "Lindt Okafor Meyer Sato Novak Silva Larsen Haddad Kovacs Rossi Duarte Fischer Nakamura Petrov Jensen Moreau "
    "Castillo Weber Tanaka Olsen Ferrari Dubois Santos Keller Ibrahim Vargas Schmidt Holm Andersen Costa Bauer "
    "Romero Lehmann Popov Hansen Marino Ortega Vogel Suzuki Nilsson Mendes Fontaine Hoffman Ricci Dahl Torres Brandt "
    "Khan"
)

CITIES = _words(
    "Oslo Lisbon Porto Geneva Vienna Prague Madrid Naples Athens Dublin Krakow Bergen Zurich Munich Hamburg Seville "
    "Milan Turin Lyon Nantes Ghent Bruges Malmo Aarhus Tampere Riga Tallinn Vilnius Gdansk Leipzig Bilbao Valencia "
    "Cardiff Leeds Bristol Galway Cork Basel Graz Linz Split Zagreb Sofia Patras Izmir Tunis Rabat Cairo"
)

ITEMS = _words(
    "Lamp Kettle Chair Table Monitor Keyboard Printer Router Camera Tripod Backpack Blanket Mirror Toaster Blender "
    "Heater Fan Clock Radio Speaker Scanner Projector Charger Tablet Notebook Folder Stapler Marker Easel Canvas "
    "Helmet Jacket Glove Scarf Boot Tent Stove Lantern Compass Cooler Bench Ladder Cabinet Drawer Carpet Curtain Vase "
    "Basket"
)

SERVICES = _words(
    "Billing Search Catalog Checkout Inventory Payments Profile Gateway Storage Messaging Reports Scheduler Mailer "
    "Sessions Analytics Pricing Archive Discovery Registry Cache Proxy Metrics Uploads Streams"
)

TEAMS = _words(
    "Amber Cobalt Crimson Ivory Jade Lilac Maroon Olive Pearl Ruby Sable Scarlet Silver Teal Topaz Violet Walnut "
    "Azure Bronze Copper Coral Emerald Garnet Indigo"
)

BRANDS = _words(
    "Nordal Velora Kestrel Brimex Halden Orvane Tolvik Marlow Quillon Fenwick Ardent Solway Calder Lumina Zephyr "
    "Brackwell Corvid Dunmore Everett Galtree Hollis Jarrow Kelvine Lomond"
)

MATERIALS = _words(
    "oak bamboo steel cotton leather linen ceramic glass copper walnut wool cork marble brass canvas granite pine "
    "titanium velvet aluminium"
)

ADJECTIVES = _words(
    "compact sturdy elegant quiet light durable modern classic bright simple warm reliable clever smooth slim robust "
    "gentle handy bold tidy"
)

PLACES = _words("kitchen office garden studio bedroom workshop balcony garage library cabin classroom hallway")

FUNCTION_NAMES = _words(
    "combine resolve measure collect adjust convert balance reduce estimate update arrange inspect compute refine "
    "predict select merge extend assemble normalize"
)

IDENTIFIERS = _words(
    "total count rate price weight height width depth speed limit offset budget margin score level index size scale "
    "factor bonus charge credit volume energy power pressure ratio delay window buffer queue stack batch chunk block "
    "frame"
)
CONSTANTS = range(10, 55)

LETTERS = "ABCDEFGHJKLMNPRSTVWXZ"
