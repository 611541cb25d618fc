"""Tables of slides, as TRIDENT, CLAM, spreadsheets and people write them."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from configs import demo
from ssldiff_jax.core import schema
from ssldiff_jax.data import config as data_config
from ssldiff_jax.data import named_slides, patch_list, slide_source, slide_table


@pytest.fixture
def slides(tmp_path):
    """A folder of slides by name, three files of equal suffix and one of another."""
    folder = tmp_path / "slides"
    folder.mkdir()
    for i, name in enumerate(("a.svs", "b.svs", "c.svs", "d.tif")):
        (folder / name).write_bytes(bytes([i]) * 9)
    return folder


@pytest.fixture
def write(slides):
    """Writes a table beside the slides and gives its path."""

    def write(text, name="table.csv", encoding="utf-8"):
        path = slides / name
        path.write_bytes(text.encode(encoding))
        return str(path)

    return write


def data_of(table, **changes):
    values = demo.get_config().to_dict()["data"] | {"slides": table}
    values["holdout"] |= {"by": "case", "case_regex": r"TCGA-\w{2}-\w{4}"}
    data = schema.build(data_config.DataConfig, values)
    return dataclasses.replace(data, **changes)


def test_rows_are_found_by_path_name_and_stem(write, slides):
    table = write(f"slide,mpp\n{slides}/b.svs,0.5\na.svs,\nd,0.25\n")
    rows = slide_table.read(table, "")
    assert [pathlib.Path(source).name for source in rows] == ["a.svs", "b.svs", "d.tif"]
    assert [row.mpp for row in rows.values()] == [None, 0.5, 0.25]
    assert all(pathlib.Path(source).exists() for source in rows)


def test_tridents_list_is_read_as_it_is(write):
    rows = list(slide_table.read(write("wsi,mpp\nb.svs,0.5\na.svs,0.25\n"), "").values())
    assert [(row.slide, row.mpp) for row in rows] == [("a.svs", 0.25), ("b.svs", 0.5)]


def test_a_scenes_scale_is_in_metres(write):
    rows = slide_table.read(write("slide,mpp,metres\nd.tif,,0.6\na.svs,0.25,\n"), "").values()
    assert [row.mpp for row in rows] == [0.25, pytest.approx(6e5)]


def test_clams_files_are_read_as_they_are(write, slides, tmp_path):
    data_set = tmp_path / "dataset_csv"
    data_set.mkdir()
    (data_set / "tumor_vs_normal.csv").write_text(
        "case_id,slide_id,label\npatient_0,a,normal_tissue\npatient_1,b,tumor_tissue\n"
        "patient_2,c,tumor_tissue\n"
    )
    rows = slide_table.read(str(data_set / "tumor_vs_normal.csv"), str(slides))
    assert [(row.case, row.label) for row in rows.values()] == [
        ("patient_0", "normal_tissue"),
        ("patient_1", "tumor_tissue"),
        ("patient_2", "tumor_tissue"),
    ]
    # pandas writes an index without a name, and columns of other lengths.
    splits = write(",train,val,test\n0,a,b,c\n1,d,,\n", "splits_0.csv")
    sides = {row.slide: row.split for row in slide_table.read(splits, "").values()}
    assert sides == {"a": "train", "d": "train", "b": "validation", "c": "test"}
    of_splits = data_of(splits)
    assert slide_source.cases_of(of_splits).held_out == {"c"}
    both = f"{splits},{data_set}/tumor_vs_normal.csv"
    joined = {
        row.slide: (row.label, row.split) for row in slide_table.read(both, str(slides)).values()
    }
    assert joined["b"] == ("tumor_tissue", "validation")
    assert joined["d"] == ("", "train")
    process = write("slide_id,process,status\na.svs,1,tbp\nb.svs,0,processed\n", "process_list.csv")
    assert [row.slide for row in slide_table.read(process, "").values()] == ["a.svs"]
    left = slide_table.read(f"{data_set}/tumor_vs_normal.csv,{process}", str(slides))
    assert [row.slide for row in left.values()] == ["a", "c"]
    as_bool = write(",train,val,test\na,True,False,False\nb,False,True,False\nc,False,False,True\n")
    sides = {row.slide: row.split for row in slide_table.read(as_bool, "").values()}
    assert sides == {"a": "train", "b": "validation", "c": "test"}
    summary = write(",train,val,test\nnormal,3,1,1\ntumor,3,1,1\n")
    with pytest.raises(slide_table.SlideTableError, match="got numbers: is it a summary"):
        slide_table.read(summary, "")


def test_a_name_is_looked_for_in_its_own_folder(write, slides):
    for name in ("x/a.svs", "x/deep/e.svs", "y/a.svs"):
        (slides / name).parent.mkdir(parents=True, exist_ok=True)
        (slides / name).write_bytes(name.encode())
    (slides / "c1").mkdir()
    (slides / "c1.mrxs").write_bytes(b"beside its folder")
    rows = slide_table.read(write("slide_id\nx/a\ny/a\nx/deep/e\nc1\na\n"), "")
    found = {str(pathlib.Path(source).relative_to(slides)) for source in rows}
    assert found == {"x/a.svs", "y/a.svs", "x/deep/e.svs", "c1.mrxs", "a.svs"}


def test_tables_and_folders_by_other_names(write, slides, monkeypatch):
    monkeypatch.setenv("HOME", str(slides.parent))
    table = write("slide\tmpp\na\t0.5\n", "list, of slides.tsv")
    assert slide_table.is_table(table)
    (row,) = slide_table.read(table, "~/slides").values()
    assert row.mpp == 0.5
    with pytest.raises(slide_table.SlideTableError, match=r"config\.data\.folder must be a folder"):
        slide_table.read(table, str(slides / "nowhere"))
    with pytest.raises(slide_table.SlideTableError, match="tables or slides, got both"):
        slide_table.is_table("t.csv,slides/*.svs")
    with pytest.raises(slide_table.SlideTableError, match="must lie on this machine, got gs://"):
        slide_table.read("gs://bucket/t.csv", "")
    with pytest.raises(slide_table.SlideTableError, match="without null characters"):
        slide_table.read(write("slide\na\0\n"), "")


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("slide;mpp;label\r\na.svs;0,25;Schläfe\r\n", "utf-8-sig"),
        ("slide\tmpp\tlabel\na.svs\t0.25\tSchläfe\n", "utf-8"),
        ("sep=;\r\nslide;mpp;label\r\na.svs;0,25;Schläfe\r\n", "utf-8"),
        ('"Slide","MPP","Label"\n" a.svs "," 0.25 ","Schläfe"\n\n', "utf-8"),
    ],
)
def test_spreadsheets_of_any_country_are_read(write, text, encoding):
    (row,) = slide_table.read(write(text, encoding=encoding), "").values()
    assert (row.mpp, row.label) == (0.25, "Schläfe")


def test_two_rows_of_one_slide_are_joined_where_they_agree(write, slides):
    (slides / "link.svs").symlink_to(slides / "a.svs")
    table = write("slide,mpp,label\na.svs,0.5,\nlink.svs,,tumour\na,0.5,tumour\nb.svs,1,\n")
    first, _ = slide_table.read(table, "").values()
    assert (first.mpp, first.label) == (0.5, "tumour")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,mpp\na.svs,1\n", "must have a column slide, wsi or slide_id, .* got file, mpp"),
        ("slide,wsi\na.svs,b.svs\n", "one column for the slide, got slide and wsi"),
        ("slide,mpp\n", "must have a header and rows, got 1 rows"),
        ("", "must have a header and rows, got 0 rows"),
        ("slide,mpp\na.svs\n", "row 2 must have 2 values, got 1"),
        ("slide,mpp\na.svs,wide\n", "row 2: mpp must be a number above 0, got 'wide'"),
        ("slide,mpp\na.svs,-1\n", "row 2: mpp must be a number above 0, got '-1'"),
        ("slide,mpp\na.svs,nan\n", "row 2: mpp must be a number above 0, got 'nan'"),
        ("slide,metres\na.svs,0\n", "row 2: metres must be a number above 0, got '0'"),
        ("slide,mpp,metres\na.svs,1,2\n", "row 2: must have mpp or metres, got both"),
        ("slide,split\na.svs,hold\n",
         "row 2: split must be train, validation or test, got 'hold'"),
        ("slide,mpp\n,1\n", "row 2 must name a slide"),
        ("slide,mpp\na.svs,1\nb.svs,1\na,2\n",
         "row 2 and .*row 4 must say one mpp of a.svs, got 1 and 2"),
        ("slide\n=cmd()\n", "got none of 1, such as =cmd"),
        ("slide,case\na.svs,x\na.svs,y\n", "row 2 and .*row 3 must say one case of a.svs"),
        ("slide\nx.svs\ny.svs\n",
         "got none of 2, such as x.svs in .*row 2: say --config.data.folder"),
        ("slide,reading\na.svs,bands=red\n", "row 2: reading must be such as 'bands=4 3 2;"),
        ("slide,mask\na.svs,m.jpg\n", "row 2: mask must be a PNG or TIFF, got '.*m.jpg'"),
        ("slide,process\na.svs,0\n", r"must name slides, got none \(1 with process 0\)"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_used_is_named_with_its_row(write, text, message):
    with pytest.raises(slide_table.SlideTableError, match=message):
        slide_table.read(write(text), "")


def test_a_stem_of_two_files_is_refused(write, slides):
    (slides / "a.tif").write_bytes(b"other")
    with pytest.raises(
        slide_table.SlideTableError, match=r"a must be one slide .* a.svs and a.tif"
    ):
        slide_table.read(write("slide_id\na\n"), "")


def test_a_file_that_is_not_there_is_left_to_who_reads_it(write, slides):
    rows = slide_table.read(write("slide\na.svs\nnone.svs\n"), "")
    assert str(slides / "none.svs") in rows


def square(left, top, side, name):
    ring = [[left, top], [left + side, top], [left + side, top + side], [left, top + side]]
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [[*ring, ring[0]]]},
        "properties": {"classification": {"name": name}},
    }


def test_regions_and_masks_of_a_row_are_that_slides(write, slides, tmp_path):
    (slides / "marks").mkdir()
    features = {"type": "FeatureCollection", "features": [square(0, 0, 4, "Tumor")]}
    (slides / "marks" / "of_a.geojson").write_text(json.dumps(features))
    Image.fromarray(np.full((3, 3), 255, np.uint8)).save(tmp_path / "of_b.png")
    table = write(
        f"slide,annotations,mask\na.svs,marks/of_a.geojson,\nb.svs,,{tmp_path}/of_b.png\nc.svs,,\n"
    )
    data = data_of(table)
    marks = slide_source.marks_of(data)
    by_name = {pathlib.Path(source).name: one for source, one in marks.items()}
    assert by_name.keys() == {"a.svs", "b.svs"}
    assert by_name["a.svs"].regions == str(slides / "marks" / "of_a.geojson")
    assert by_name["b.svs"].mask == str(tmp_path / "of_b.png")
    # Where a class is tissue, a slide that has no regions has none.
    tumour = dataclasses.replace(data.annotations, use=("Tumor",))
    all_marks = slide_source.marks_of(dataclasses.replace(data, annotations=tumour))
    assert len(all_marks) == 3
    none_marked = dataclasses.replace(
        data_of(write("slide\na.svs\n", "bare.csv")), annotations=tumour
    )
    with pytest.raises(schema.ConfigError, match="or with a table of slides that names some"):
        slide_source.marks_of(none_marked)
    # What the file says decides, not only its name.
    before = slide_source.marked_by(data)
    features["features"][0] = square(0, 0, 3, "Tumor")
    (slides / "marks" / "of_a.geojson").write_text(json.dumps(features))
    assert slide_source.marked_by(data) != before
    # One that is not there costs its slide alone.
    missing = data_of(write("slide,annotations\na.svs,none.geojson\n"))
    assert slide_source.marked_by(missing)["annotations"][0][:2] == ["a.svs", "missing"]


def test_classes_of_regions_need_a_file_or_a_table(slides):
    values = demo.get_config().to_dict()["data"] | {"slides": f"{slides}/*.svs"}
    values["annotations"] = values["annotations"] | {"use": ("Tumor",)}
    with pytest.raises(schema.ConfigError, match="or with a table of slides that names some"):
        schema.build(data_config.DataConfig, values)


def test_a_stem_in_an_empty_folder_is_no_slide(tmp_path):
    (tmp_path / "table.csv").write_text("slide_id\na\n")
    with pytest.raises(slide_table.SlideTableError, match="got none of 1, such as a in"):
        slide_table.read(str(tmp_path / "table.csv"), "")


def test_a_reading_of_its_own(write):
    table = write("slide,reading\na.svs,\nd.tif,bands=4 3 2; low=0; high=3000\n")
    by_name = {pathlib.Path(s.source).name: s.reading for s in named_slides.slides(data_of(table))}
    assert by_name["d.tif"].bands == (4, 3, 2)
    assert by_name["d.tif"].high == 3000
    assert not by_name["a.svs"].is_of_rasters
    wrong = write("slide,reading\na.svs,low=9; high=3\n")
    with pytest.raises(slide_table.SlideTableError, match="row 2: low must lie below high"):
        named_slides.slides(data_of(wrong))


def test_splits_are_the_tables(write):
    table = write("slide,case,split\na.svs,p,train\nb.svs,q,val\nc.svs,r,Test\nd.tif,p,train\n")
    split = slide_source.cases_of(data_of(table))
    sides = {pathlib.Path(name).name: split.side(name) for name in split.names}
    assert sides == {"a.svs": "train", "b.svs": "validation", "c.svs": "test", "d.tif": "train"}
    assert str(split) == "3 cases, 1 of them held out by the table"
    by_area = dataclasses.replace(data_of(table).holdout, by="area")
    with pytest.raises(schema.ConfigError, match=r"holdout\.by must be case, .* got area"):
        named_slides.listed(named_slides.slides(data_of(table)), by_area)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("slide,case,split\na.svs,p,train\nb.svs,p,test\n",
         "row 2 and .*row 3 must be of one split, as they are of case p, got train and test"),
        ("slide,split\na.svs,train\nb.svs,test\nc.svs,\n",
         "row 4 must have a split, as others have, got none for 1 of 3"),
        ("slide,split\na.svs,train\nb.svs,val\n",
         r"table.csv: splits must have train and test, got no slide for test"),
        ("slide,split\nTCGA-A1-0001-01.svs,train\nTCGA-A1-0001-02.svs,test\na.svs,test\n",
         "as they are of case TCGA-A1-0001"),
        ("slide,case,split\na.svs,p,train\nb.svs,,test\nc.svs,q,test\n",
         "row 3 must have a case, as others have, got none for 1 of 3"),
    ],
)  # fmt: skip
def test_a_split_never_parts_a_case(write, text, message):
    with pytest.raises(slide_table.SlideTableError, match=message):
        slide_source.cases_of(data_of(write(text)))


def test_cases_without_a_split_are_held_out_by_the_hash_of_their_names(write):
    table = write("slide,case\na.svs,p\nb.svs,q\nc.svs,q\nd.tif,r\n")
    split = slide_source.cases_of(data_of(table))
    sides = {pathlib.Path(name).stem: split.side(name) for name in split.names}
    assert sides["b"] == sides["c"]
    assert set(sides.values()) == {"train", "test"}
    assert str(split).startswith("3 cases, ")


def test_a_case_that_the_name_contradicts_is_told(write, slides):
    for name in ("TCGA-A1-0001-01.svs", "TCGA-A1-0002-01.svs"):
        (slides / name).write_bytes(name.encode())
    text = "slide,case\nTCGA-A1-0001-01.svs,TCGA-A1-0001\nTCGA-A1-0002-01.svs,TCGA-A1-0009\n"
    told = named_slides.contradiction(data_of(write(text)))
    assert told.startswith("1 slides are of another case ")
    assert "TCGA-A1-0009 in " in told
    assert "not TCGA-A1-0002: the table's is used" in told
    assert named_slides.contradiction(data_of(write("slide,case\na.svs,x\n"))) == ""


def test_what_a_table_adds_makes_another_entry_and_what_it_does_not_the_same(
    write, slides, tmp_path
):
    plain = data_of(f"{slides}/*.svs")
    folders = lambda data: {
        t.name: t.folder for t in slide_source.tasks(data, tmp_path / "archive")
    }
    without = folders(plain)
    same = folders(data_of(write("slide\na.svs\nb.svs\nc.svs\n")))
    assert same == without
    seen = {without["a.svs"]}
    for more in ("mpp\na.svs,0.4", "case\na.svs,x", "label\na.svs,x", "reading\na.svs,high=9"):
        value = {"mpp": "0.5", "case": "as its name"}.get(more.partition("\n")[0], "")
        rest = f"\nb.svs,{value}\nc.svs,{value}"
        folder = folders(data_of(write(f"slide,{more}{rest}\n")))["a.svs"]
        assert folder not in seen
        seen.add(folder)


def test_a_folder_without_a_table_is_refused(slides):
    with pytest.raises(schema.ConfigError, match=r"config\.data\.folder must be ''"):
        named_slides.slides(data_of(f"{slides}/*.svs", folder=str(slides)))


def test_case_of_an_image_is_found_in_its_folder(tmp_path):
    """Images of a list, large enough to be slides, whose folders are their cases."""
    for case in ("case1", "case2"):
        (tmp_path / case).mkdir()
        for i in range(2):
            pixels = np.full((8, 8, 3), 10 * i + len(case), np.uint8)
            Image.fromarray(pixels).save(tmp_path / case / f"{i}_{case[-1]}.png")
    data = data_of(f"folder:{tmp_path}", mpp=0.5)
    data = dataclasses.replace(
        data, holdout=dataclasses.replace(data.holdout, case_regex=r"case\d", fraction=0.5)
    )
    images = patch_list.open_list(data.slides, data.reading)
    tasks = slide_source.tasks(data, tmp_path / "archive", images)
    assert [task.case for task in tasks] == ["case1", "case1", "case2", "case2"]
    split = slide_source.cases_of(data, images)
    for task in tasks:
        alone = "test" if split.is_alone_held_out(task.name) else "train"
        assert (task.about.side or alone) == split.side(task.source)


NFC, NFD = "caf\u00e9", "cafe\u0301"


@pytest.mark.parametrize("on_disk", [NFC, NFD])
@pytest.mark.parametrize("in_table", [NFC, NFD])
@pytest.mark.parametrize("name", ["{}.svs", "{}", "in_{0}/{0}.svs", "in_{0}/{0}"])
def test_names_match_however_their_accents_are_kept(tmp_path, on_disk, in_table, name):
    """A file system of macOS gives NFD, most programs write NFC."""
    folder = tmp_path / "slides"
    (folder / f"in_{on_disk}").mkdir(parents=True)
    path = folder / name.format(on_disk)
    path = path if path.suffix else path.with_suffix(".svs")
    path.write_bytes(b"slide")
    (folder / f"{on_disk}.geojson").write_text("[]")
    table = folder / "table.csv"
    written = name.format(in_table)
    table.write_text(f"slide,annotations\n{written},{in_table}.geojson\n{written},\n")
    ((source, row),) = slide_table.read(str(table), "").items()
    assert source == str(path)
    assert row.annotations == str(folder / f"{on_disk}.geojson")


def test_of_two_names_that_look_alike_the_one_that_is_written_is_meant(tmp_path):
    for name in (NFC, NFD):
        (tmp_path / f"{name}.svs").write_bytes(name.encode())
    table = tmp_path / "table.csv"
    table.write_text(f"slide\n{NFD}.svs\n")
    (source,) = slide_table.read(str(table), "")
    assert source == str(tmp_path / f"{NFD}.svs")
    table.write_text(f"slide\n{NFC}\n")
    with pytest.raises(slide_table.SlideTableError, match=r"must be one slide in .* its suffix"):
        slide_table.read(str(table), "")


def test_one_case_in_two_spellings_is_refused(write):
    """They would lie on two sides of the split."""
    table = write(f"slide,case,split\na,{NFC},train\nb,{NFD},test\nc,x,test\n")
    data = data_of(table)
    with pytest.raises(slide_table.SlideTableError, match=r"row 2 and .*row 3 must write one case"):
        named_slides.listed(named_slides.slides(data), data.holdout)


@pytest.mark.parametrize(
    ("column", "known"),
    [
        ("lable", "label"), ("Labels", "label"), ("anotations", "annotations"), ("spilt", "split"),
        ("annotation", "annotations"), ("meters", "metres"), ("masks", "mask"),
        ("caseid", "case_id"), ("readings", "reading"),
    ],
)  # fmt: skip
def test_a_mistyped_column_is_named_once(write, caplog, column, known):
    table = write(f"slide,{column}\na.svs,x\nb.svs,y\n")
    for _ in range(2):
        slide_table.read(table, "")
    assert caplog.messages == [f"{table}: the column {column!r} is not read; is it {known!r}?"]


# Columns of CLAM's process lists, data sets of survival, TRIDENT's lists and cohort tables.
OTHERS = [
    "slide_id,process,status,seg_level,sthresh,mthresh,close,use_otsu,keep_ids,exclude_ids,a_t,a_h,"
    "max_n_holes,vis_level,line_thickness,white_thresh,black_thresh,use_padding,contour_fn",
    "case_id,slide_id,site,is_female,oncotree_code,age,survival_months,censorship,train",
    "wsi,mpp,file_path,size,width,height,mag,level_count",
    "slide_id,patient_id,sample,barcode,project,stage,grade,race,class,task,path,name,md5,notes",
    "slide_id,label,labels,label_id,case_id,cases,split,splits",
    ",slide,Unnamed: 1",
]


@pytest.mark.parametrize("header", OTHERS)
def test_columns_of_other_programs_are_no_mistakes(write, caplog, header):
    cells = {"mpp": "0.5", "process": "1", "slide_id": "a", "wsi": "a", "slide": "a",
             "split": "train"}  # fmt: skip
    table = write(f"{header}\n" + ",".join(cells.get(name, "7") for name in header.split(",")))
    slide_table.read(table, "")
    assert not caplog.messages
