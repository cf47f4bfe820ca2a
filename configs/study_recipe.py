"""The recipe, each lever taken out: what makes a fine-tuned student worth having (docs/results/recipe.md).

    python launch.py --config=configs/study_recipe.py --config.data.source=bundlerec --config.data.root=DIR \\
        --config.data.domains="('electronic','clothing')"

Every cell is compared with the recipe as it is. With two domains, a cell for each alone shows what learning from both is worth.
`:smoke` runs in two minutes.
"""

from configs.base import cell, study, variant

RECIPE = "the recipe"
CELLS = (
    cell(RECIPE),
    cell("not fine-tuned", RECIPE, train__max_steps=0),
    cell("not shuffled", RECIPE, train__shuffle_products=False),
    cell("leaf category alone", RECIPE, prompting__fields=("title", "category")),
    cell("no category", RECIPE, prompting__fields=("title",)),
    cell("one order", RECIPE, eval__orders=1),
    cell("one epoch", RECIPE, train__epochs=1),
    cell("nine layers", RECIPE, student__pair_layers=9),
    cell("written", RECIPE, student__answer="text", eval__orders=1, eval__constraint="items"),
)


def get_config(arg: str = ""):
    config = study("study_recipe", "Which parts of the recipe is the student's quality owed to?", CELLS)
    config.knowledge.formats = ()
    config.study.each_domain = True
    config = variant(config, arg)
    if arg == "smoke":
        config.study.cells = CELLS[:4]
        config.study.seeds = (0,)
        config.train.max_steps = 2
    return config
