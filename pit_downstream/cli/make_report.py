"""Create one HTML page of all results: models side by side, figures, tables, and missing measurements.

pit-downstream make-report work_dirs/records/results.jsonl work_dirs/* --output report.html
pit-downstream make-report work_dirs speed --reference pit_s --figures figures --tables tables
Input: records (results.jsonl with the files next to it), summaries of --json, mmengine's logs, speed/results.csv and
images. Output: the page, report.json and report.csv.
"""

from collections.abc import Sequence

from pit_downstream.cli import flags
from pit_downstream.cli.errors import report_errors
from pit_downstream.cli.plugins import import_plugins
from pit_downstream.utils.extras import require_extra


def make_parser() -> flags.ToolParser:
    parser = flags.ToolParser(__doc__)
    parser.groups['data'].add_argument('paths', nargs='+', metavar='PATH', help='files, or folders of files')
    parser.groups['data'].add_argument('--reference', default='AlexNet', metavar='NAME', help='reference model of CE '
                                       'and differences (default: published AlexNet for CE, the first model for '
                                       'differences)')
    add = parser.groups['output'].add_argument
    add('--output', default='report.html', metavar='FILE', help='HTML file to write (default: %(default)s)')
    add('--title', default='Robustness report', help='title of the page (default: %(default)s)')
    add('--figures', metavar='DIR', help='folder for every figure as SVG and PNG (default: none)')
    add('--tables', metavar='DIR', help='folder for every table as LaTeX (booktabs) and Markdown (default: none)')
    flags.add_import_flag(parser, 'benchmarks or sections')
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    with report_errors():
        args = make_parser().parse_args(argv)
        require_extra('report')
        from pit_downstream.report import exports, page, sections
        exports.check_outputs(args.output, figures=args.figures, tables=args.tables)
        import_plugins(args.imports)
        report = sections.make_report(args.paths, reference=args.reference, title=args.title,
                                      exclude=filter(None, (args.figures, args.tables)))
        files = exports.write_report(report, args.output, html=page.render_page(report, made=page.describe_origin()))
        if args.figures:
            exports.write_figures(report, args.figures)
        if args.tables:
            exports.write_tables(report, args.tables)
        for gap in report.gaps:
            print(f'missing: {gap.what}\n    {gap.command}')
        print(*files, *filter(None, (args.figures, args.tables)), sep='\n')
