"""Create one HTML page of all results: models side by side, figures, tables, and missing measurements.

pit-downstream make-report work_dirs/records/results.jsonl work_dirs/* --output report.html
pit-downstream make-report work_dirs speed --reference pit_s --figures figures --tables tables
It reads records (results.jsonl, with verdicts and runs beside them; summaries that tools wrote with --json), mmengine's
logs, speed/results.csv, and images, from files and folders. It writes report.json and report.csv beside the page.
"""

from collections.abc import Sequence

from pit_downstream.cli import flags
from pit_downstream.cli.errors import report_errors
from pit_downstream.cli.plugins import import_plugins
from pit_downstream.utils.extras import require_extra


def make_parser() -> flags.ToolParser:
    parser = flags.ToolParser(__doc__)
    parser.groups['data'].add_argument('paths', nargs='+', metavar='PATH', help='files, or folders of files')
    parser.groups['data'].add_argument('--reference', default='AlexNet', metavar='NAME', help='the model that CE and '
                                       'differences compare with (default: AlexNet as published, for CE; the first '
                                       'model, for differences)')
    add = parser.groups['output'].add_argument
    add('--output', default='report.html', metavar='FILE', help='the page (default: %(default)s)')
    add('--title', default='Robustness report', help='(default: %(default)s)')
    add('--figures', metavar='DIR', help='also write every figure as SVG and PNG (default: none)')
    add('--tables', metavar='DIR', help='also write every table as LaTeX (booktabs) and Markdown (default: none)')
    flags.add_import_flag(parser, 'sections')
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    with report_errors():
        args = make_parser().parse_args(argv)
        require_extra('report')
        from pit_downstream.report import exports, page, sections
        exports.require_places(args.output, figures=args.figures, tables=args.tables)
        import_plugins(args.imports)
        report = sections.make_report(args.paths, reference=args.reference, title=args.title,
                                      apart_from=filter(None, (args.figures, args.tables)))
        files = exports.write_report(report, args.output, html=page.as_html(report, made=page.made_now()))
        exports.write_figures(report, args.figures)
        exports.write_tables(report, args.tables)
        for gap in report.gaps:
            print(f'missing: {gap.what}\n    {gap.command}')
        print(*files, *filter(None, (args.figures, args.tables)), sep='\n')
